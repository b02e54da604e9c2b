// A head on its way into the cache, narrowed as kernels/ref/kv_codes.cpp says, to the bit. A warp
// has a head; lane l has its channels l, l + 32 ...
#pragma once

#include <cuda_fp8.h>

#include <cmath>

#include "kernels/cuda/kv_fragments.h"
#include "kernels/cuda/kv_page.cuh"
#include "kernels/rows.h"

namespace tandem {

constexpr uint32_t kNaN = 0x7FC00000;  // as the host's NAN

// A head's word, and what turns an element into its code: (x - min) * inverse.
struct Narrowing {
  uint32_t word;
  float min = 0, inverse;
};

// x[i] is channel lane + 32 i; every lane gets the result.
template <KvType type, int kEach>
__device__ __forceinline__ Narrowing narrowing_of(const float (&x)[kEach]) {
  float low = INFINITY, high = -INFINITY, max_abs = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    low = fminf(low, x[i]), high = fmaxf(high, x[i]);
    max_abs = fmaxf(max_abs, isfinite(x[i]) ? fabsf(x[i]) : INFINITY);
  }
  max_abs = warp_max(max_abs);
  const bool finite = isfinite(max_abs);
  Narrowing result;
  if constexpr (type == KvType::int4) {
    high = warp_max(high), low = -warp_max(-low);
    const uint32_t scale = __bfloat16_as_ushort(__float2bfloat16_rn((high - low) / 15.0f));
    const uint32_t min = __bfloat16_as_ushort(__float2bfloat16_rn(low));
    result.word = finite ? scale | min << 16 : kNaN >> 16;
    const float rounded_scale = __uint_as_float(scale << 16);
    result.min = __uint_as_float(min << 16);
    result.inverse = finite && rounded_scale > kSmallestMaxAbs ? 1.0f / rounded_scale : 0.0f;
  } else {
    constexpr float kLargest = type == KvType::fp8 ? 448.0f : 127.0f;
    result.word = finite ? __float_as_uint(max_abs / kLargest) : kNaN;
    result.inverse = finite && max_abs > kv_smallest_max_abs(type) ? kLargest / max_abs : 0.0f;
  }
  return result;
}

template <KvType type>
__device__ __forceinline__ uint32_t code_of(const Narrowing& narrowing, float x) {
  const float scaled =
      narrowing.inverse > 0 ? __fmul_rn(__fsub_rn(x, narrowing.min), narrowing.inverse) : 0.0f;
  if constexpr (type == KvType::fp8) {
    return __nv_cvt_float_to_fp8(scaled, __NV_SATFINITE, __NV_E4M3);
  } else if constexpr (type == KvType::int8) {
    return static_cast<uint32_t>(__float2int_rn(scaled) + kInt8Bias);
  } else {
    return static_cast<uint32_t>(fminf(fmaxf(rintf(scaled), 0.0f), 15.0f));
  }
}

// One token's head of K or of V into its plane.
template <KvType type, int D, bool is_v>
__device__ __forceinline__ void store_head(const float (&x)[D / 32], uint8_t* head, int token) {
  using Bytes = HeadBytes<type, D>;
  const int lane = threadIdx.x % 32;
  uint8_t* plane = head + (is_v ? Bytes::kPlane : 0);
  const auto place = [&](int d) {
    constexpr int kBits = kv_bits(type);
    return plane +
           (is_v ? v_fragment_bit(kBits, D, token, d) : k_fragment_bit(kBits, D, token, d)) / 8;
  };
  if constexpr (type == KvType::bf16) {
#pragma unroll
    for (int i = 0; i < D / 32; ++i)
      *reinterpret_cast<__nv_bfloat16*>(place(lane + 32 * i)) = __float2bfloat16_rn(x[i]);
    return;
  }
  const Narrowing narrowing = narrowing_of<type>(x);
  if (lane == 0) {
    constexpr int kOffset = is_v ? Bytes::kValueWords : Bytes::kKeyWords;
    reinterpret_cast<uint32_t*>(head + kOffset)[token] = narrowing.word;
  }
#pragma unroll
  for (int i = 0; i < D / 32; ++i) {
    const int d = lane + 32 * i;
    uint32_t code = code_of<type>(narrowing, x[i]);
    if constexpr (type != KvType::int4) {
      *place(d) = static_cast<uint8_t>(code);
    } else if constexpr (is_v) {  // channels d and d + 8 share a byte
      code |= __shfl_xor_sync(~0u, code, 8) << 4;
      if (d % 16 < 8) *place(d) = static_cast<uint8_t>(code);
    } else {  // eight neighbouring channels share a word
      code <<= (d % 8 / 2 + 4 * (d % 2)) * 4;
#pragma unroll
      for (int apart = 1; apart < 8; apart *= 2) code |= __shfl_xor_sync(~0u, code, apart);
      if (d % 8 == 0) *reinterpret_cast<uint32_t*>(place(d)) = code;
    }
  }
}

// rotate_hadamard() of a head whose channel lane + 32 i is x[i], to the bit.
template <int D>
__device__ __forceinline__ void rotate_hadamard(float (&x)[D / 32]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int apart = 1; apart < 32; apart *= 2) {
#pragma unroll
    for (int i = 0; i < D / 32; ++i) {
      const float other = __shfl_xor_sync(~0u, x[i], apart);
      x[i] = (lane & apart) == 0 ? x[i] + other : other - x[i];
    }
  }
#pragma unroll
  for (int apart = 1; apart < D / 32; apart *= 2) {
#pragma unroll
    for (int i = 0; i < D / 32; ++i) {
      if ((i & apart) != 0) continue;
      const float a = x[i], b = x[i + apart];
      x[i] = a + b, x[i + apart] = a - b;
    }
  }
  const float factor = 1.0f / sqrtf(static_cast<float>(D));
#pragma unroll
  for (int i = 0; i < D / 32; ++i) x[i] *= factor;
}

}  // namespace tandem
