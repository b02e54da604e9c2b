// Weights in their files' encodings, number by number: Weight's decode_row (tensor/weight.cpp) on
// the device, to the bit.
#pragma once

#include <cuda_fp8.h>

#include "kernels/cuda/tile.cuh"

namespace tandem {
namespace {

// Rows as their file has them, each begun at a multiple of four bytes, and their scales.
struct WeightRows {
  const uint8_t* data;    // [N, ld]
  const uint8_t* scales;  // [N, groups] of scale_type
  const uint8_t* zeros;   // [N, groups], where the encoding has zero points
  int64_t ld;
  int N, K, groups, group;  // group: elements of one scale; 0: a row's
  Packing packing;
  ScaleType scale_type;
  float table[16];  // nf4, fp4, codebook
};

__device__ inline float half_at(const uint8_t* p) {
  return __half2float(*reinterpret_cast<const __half*>(p));
}
__device__ inline float bf16_at(const uint8_t* p) {
  return __bfloat162float(*reinterpret_cast<const __nv_bfloat16*>(p));
}
__device__ inline float e4m3_at(const uint8_t* p) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(*p, __NV_E4M3)));
}
__device__ inline int nibble(const uint8_t* p, int i) { return p[i / 2] >> (i % 2 * 4) & 15; }
// Of a block of GGUF's: element j and j + 16 share a byte.
__device__ inline int block_nibble(const uint8_t* p, int j) {
  return p[j % 16] >> (j / 16 * 4) & 15;
}

// Element i of a super-block of 256; the order of the roundings is SuperBlock::value's.
__device__ inline float q4_k_at(const uint8_t* p, int i) {
  const int g = i / 32, code = p[16 + g / 2 * 32 + i % 32] >> (g % 2 * 4) & 15;
  const uint8_t* s = p + 4;
  const int scale = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | (s[g - 4] >> 6) << 4;
  const int min = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | (s[g] >> 6) << 4;
  const float product = __fmul_rn(half_at(p) * static_cast<float>(scale), static_cast<float>(code));
  return __fsub_rn(product, __fmul_rn(half_at(p + 2), static_cast<float>(min)));
}
__device__ inline float q6_k_at(const uint8_t* p, int i) {
  const int part = i / 32, j = i % 32;
  const int low = p[part / 4 * 64 + part % 2 * 32 + j] >> (part / 2 % 2 * 4) & 15;
  const int high = p[128 + part / 4 * 32 + j] >> (part % 4 * 2) & 3;
  const auto scale = static_cast<float>(static_cast<int8_t>(p[192 + i / 16]));
  return half_at(p + 208) * scale * static_cast<float>((low | high << 4) - 32);
}

// Row n of the weight. at(k) is its k-th number, without the scale of the row where there is one.
struct WeightRow {
  const WeightRows& w;
  const uint8_t* data;
  const uint8_t* scales;
  const uint8_t* zeros;

  __device__ WeightRow(const WeightRows& weight, int n)
      : w(weight), data(weight.data + n * weight.ld) {
    const int step = weight.scale_type == ScaleType::f32 ? 4 : 2;
    scales = weight.scales + static_cast<int64_t>(n) * weight.groups * step;
    zeros = weight.zeros + static_cast<int64_t>(n) * weight.groups;
  }
  __device__ float scale(int group) const {
    return decode_scale(scales + group * (w.scale_type == ScaleType::f32 ? 4 : 2), w.scale_type);
  }
  __device__ float row_scale() const {
    return w.scale_type != ScaleType::none && w.group == 0 ? scale(0) : 1.0f;
  }
  // Of codes of `bits`, one after another from the lowest bit.
  __device__ float less_zero(int k, int bits) const {
    const int bit = k * bits, in_byte = bit % 8, group = k / w.group;
    int word = data[bit / 8];
    if (in_byte + bits > 8) word |= data[bit / 8 + 1] << 8;
    const int code = word >> in_byte & ((1 << bits) - 1);
    return static_cast<float>(code - zeros[group]) * scale(group);
  }
  // Which of the values kept is element k of a 2:4 row; -1: none.
  __device__ int kept(int k, const uint8_t* places) const {
    const int two = nibble(places, k / 4), place = k % 4;
    return place == (two & 3) ? k / 4 * 2 : place == two >> 2 ? k / 4 * 2 + 1 : -1;
  }
  // Not inlined: sixteen copies of it in each kernel take ptxas ten times as long.
  __device__ __noinline__ float at(int k) const {
    switch (w.packing) {
      case Packing::f16:
        return half_at(data + 2 * k);
      case Packing::bf16:
        return bf16_at(data + 2 * k);
      case Packing::int8_channel:
      case Packing::int8_static:
        return static_cast<float>(static_cast<int8_t>(data[k]));
      case Packing::fp8_channel:
      case Packing::fp8_weight:
      case Packing::fp8_static:
        return e4m3_at(data + k);
      case Packing::fp8_block:
        return e4m3_at(data + k) * scale(k / w.group);
      case Packing::int2_zero:
        return less_zero(k, 2);
      case Packing::int3_zero:
        return less_zero(k, 3);
      case Packing::int4_zero:
        return less_zero(k, 4);
      case Packing::int8_zero:
        return less_zero(k, 8);
      case Packing::nf4:
      case Packing::fp4:
      case Packing::codebook:  // the first code in the high nibble
        return w.table[nibble(data, k ^ 1)] * scale(k / w.group);
      case Packing::int4_group:
        return static_cast<float>(nibble(data, k) - 8) * scale(k / w.group);
      case Packing::q4_0: {
        const uint8_t* p = data + k / 32 * 18;
        return half_at(p) * static_cast<float>(block_nibble(p + 2, k % 32) - 8);
      }
      case Packing::q4_1: {
        const uint8_t* p = data + k / 32 * 20;
        const auto code = static_cast<float>(block_nibble(p + 4, k % 32));
        return __fadd_rn(__fmul_rn(half_at(p), code), half_at(p + 2));
      }
      case Packing::q8_0: {
        const uint8_t* p = data + k / 32 * 34;
        return static_cast<float>(static_cast<int8_t>(p[2 + k % 32])) * half_at(p);
      }
      case Packing::q4_k:
        return q4_k_at(data + k / 256 * 144, k % 256);
      case Packing::q6_k:
        return q6_k_at(data + k / 256 * 210, k % 256);
      case Packing::f16_24:
      case Packing::bf16_24: {
        const int i = kept(k, data + w.K);
        if (i < 0) return 0.0f;
        return w.packing == Packing::f16_24 ? half_at(data + 2 * i) : bf16_at(data + 2 * i);
      }
      case Packing::int4_group_24: {
        const int i = kept(k, data + w.K / 4);
        return i < 0 ? 0.0f : static_cast<float>(nibble(data, i) - 8) * scale(2 * i / w.group);
      }
      default:
        return NAN;  // no row of the table
    }
  }
};

}  // namespace
}  // namespace tandem
