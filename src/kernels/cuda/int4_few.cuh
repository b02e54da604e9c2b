// int4 in groups against few tokens, in integers.
//
// f16 has 11 significant bits; a token's 128 channels of a piece become integers of 16 bits times a
// power of two: exact down to a 16th of the largest of them, below that rounded by at most 2^-15 of
// the largest. Their upper and lower bytes are two columns of an integer mma, whose rows are the
// codes less 8, as they lie in the upper or the lower halves of a word's bytes: three instructions
// make eight codes. A group's sum is exact in 32 bits.
#pragma once

#include "kernels/cuda/few_tokens.cuh"
#include "kernels/cuda/stream.cuh"

namespace tandem {

// Columns of bytes in shared memory: [2 T][stride], upper and lower bytes of a token, then powers
// of two, [T][pieces]. The 32 bytes of a lane's channels lie as its fragments want them.
struct Int4Columns {
  static constexpr int kPadding = 64;  // neighbouring columns begin in different banks
  static __host__ __device__ int stride(int pieces) { return pieces * kPieceChannels + kPadding; }
};

// Eight f16 numbers of a lane to eight upper and eight lower bytes; 16 lanes have a piece. The
// result is the power of two, over 16, because codes are 16 times what they stand for.
__device__ __forceinline__ float split_bytes(const uint4& v, uint2& upper, uint2& lower) {
  const auto half2 = [](uint32_t pair) {
    return __habs2(*reinterpret_cast<const __half2*>(&pair));
  };
  const __half2 pair =
      __hmax2_nan(__hmax2_nan(half2(v.x), half2(v.y)), __hmax2_nan(half2(v.z), half2(v.w)));
  // As integers positive numbers have the same order, and what is no number comes last.
  uint32_t largest = *reinterpret_cast<const uint32_t*>(&pair);
  largest = max(largest & 0xFFFF, largest >> 16);
  for (int d = 8; d > 0; d /= 2) largest = max(largest, __shfl_xor_sync(~0u, largest, d));
  const float magnitude = __half2float(__ushort_as_half(static_cast<uint16_t>(largest)));
  // Such that the integers are below 32640: 127 * 256 + 128.
  const uint32_t exponent =
      largest == 0 ? 127 : __float_as_uint(magnitude * (32768.0f / 32639.0f)) >> 23;
  const float to_integer = __uint_as_float((268 - exponent) << 23);
  // The integer + 128 in the lowest bits; then the lower byte is that of the integer + 128.
  constexpr float kMagic = 12582912.0f + 128.0f;
  uint32_t n[8];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t two = word(v, i);
    const float2 f = __half22float2(*reinterpret_cast<const __half2*>(&two));
    n[2 * i] = __float_as_uint(fmaf(f.x, to_integer, kMagic));
    n[2 * i + 1] = __float_as_uint(fmaf(f.y, to_integer, kMagic));
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    // In the order 0, 2, 1, 3.
    const uint32_t* f = n + 4 * half;
    const uint32_t even = __byte_perm(f[0], f[2], 0x5140), odd = __byte_perm(f[1], f[3], 0x5140);
    (half == 0 ? lower.x : lower.y) = __byte_perm(even, odd, 0x5410) ^ 0x80808080;
    (half == 0 ? upper.x : upper.y) = __byte_perm(even, odd, 0x7632);
  }
  return largest < 0x7C00 ? __uint_as_float((exponent - 18) << 23) : NAN;
}

template <int kGroup, bool kScalesAreBf16>
struct Int4Few {
  static constexpr int kGroups = kPieceChannels / kGroup;
  static constexpr int kScalesAt = 1024;
  static constexpr int kBytes = kScalesAt + kTileRows * kGroups * 2;
  static constexpr int kPartPieces = 64;
  static constexpr int kMostTokens = 2;
  struct Constants {};

  static __host__ __device__ int x_bytes(int T, int pieces) {
    return 2 * T * Int4Columns::stride(pieces) + (T * pieces * 4 + 15) / 16 * 16;
  }
  static __device__ __forceinline__ void prepare(const Constants&, uint8_t*) {}

  static __device__ __forceinline__ void load_x(const Few<Int4Few>& p, int first, int count,
                                                uint8_t* x) {
    const int stride = Int4Columns::stride(p.held);
    float* powers = reinterpret_cast<float*>(x + 2 * p.T * stride);
    for_each_chunk(p, first, count, [&](int t, int c, const uint4& v) {
      uint2 upper, lower;
      const float power = split_bytes(v, upper, lower);
      if (c >= count * 16) return;
      uint8_t* to = x + 2 * t * stride + c / 8 * 64 + c % 4 * 16 + c % 8 / 4 * 8;
      *reinterpret_cast<uint2*>(to) = upper;
      *reinterpret_cast<uint2*>(to + stride) = lower;
      if (c % 16 == 0) powers[t * p.held + c / 16] = power;
    });
  }

  // Lane 4 r + q has column r of the mma's B side, and of its sums those of token q.
  struct Column {
    const uint8_t* bytes;
    const float* powers;
    __device__ __forceinline__ Column(const Few<Int4Few>& p, const uint8_t* x, int lane) {
      const int stride = Int4Columns::stride(p.held), r = lane / 4, q = lane % 4;
      bytes = x + min(r, 2 * p.T - 1) * stride + q * 16;
      powers = reinterpret_cast<const float*>(x + 2 * p.T * stride) + min(q, p.T - 1) * p.held;
    }
  };

  struct Tokens {
    uint4 b[2];
    float power;
    __device__ __forceinline__ void load(const Column& column, int piece) {
      const uint8_t* from = column.bytes + piece * kPieceChannels;
      b[0] = *reinterpret_cast<const uint4*>(from);
      b[1] = *reinterpret_cast<const uint4*>(from + 64);
      power = column.powers[piece];
    }
  };

  struct Sums {
    float v[2];  // of rows r and r + 8
  };

  static __device__ __forceinline__ float2 scales(const uint8_t* piece, int lane, int group) {
    const uint32_t pair =
        *reinterpret_cast<const uint32_t*>(piece + kScalesAt + (lane / 4 * kGroups + group) * 4);
    if constexpr (kScalesAreBf16)
      return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000)};
    return __half22float2(*reinterpret_cast<const __half2*>(&pair));
  }

  static __device__ __forceinline__ void multiply(const uint8_t* piece, int lane,
                                                  const Tokens& tokens, const Column&, Sums& sums) {
    constexpr int kMmas = kGroup / 32;
    constexpr uint32_t kUpper = 0xF0F0F0F0;
    const uint4 codes[2] = {*reinterpret_cast<const uint4*>(piece + lane * 16),
                            *reinterpret_cast<const uint4*>(piece + 512 + lane * 16)};
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const float2 scale = scales(piece, lane, g);
      int c[4] = {};
#pragma unroll
      for (int j = g * kMmas; j < (g + 1) * kMmas; ++j) {
        uint32_t a[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          a[i] = (j % 2 == 0 ? word(codes[j / 2], i) << 4 : word(codes[j / 2], i)) & kUpper;
        const uint4& b = tokens.b[j / 2];
        MmaS8::run(c, a[0], a[1], a[2], a[3], word(b, j % 2 * 2), word(b, j % 2 * 2 + 1));
      }
      sums.v[0] += static_cast<float>(c[0] * 256 + c[1]) * (scale.x * tokens.power);
      sums.v[1] += static_cast<float>(c[2] * 256 + c[3]) * (scale.y * tokens.power);
    }
  }

  static __device__ __forceinline__ void publish(const Sums& sums, float* to, int T, int lane) {
    const int r = lane / 4, q = lane % 4;
    if (q >= T) return;
    to[q * kTileRows + r] = sums.v[0];
    to[q * kTileRows + r + 8] = sums.v[1];
  }
};

}  // namespace tandem
