// A chunk of a row of activations as the codes or the 16-bit numbers of its type (ops.h), to the
// bit as kernels/ref/ops.cpp makes them; outliers are those of outlier_codes.cuh.
#pragma once

#include <cuda_fp8.h>

#include <cmath>

#include "kernels/cuda/warp.cuh"
#include "kernels/ops.h"
#include "kernels/rows.h"
#include "tensor/dtype.h"

namespace tandem {

constexpr int kEach = 4;  // neighbouring channels of a thread: a chunk

__device__ __forceinline__ float code_factor(float max_abs, float largest) {
  return max_abs > kSmallestMaxAbs && isfinite(max_abs) ? largest / max_abs : 0.0f;
}

// |x|, infinite when x is not a number, so that a maximum shows it.
__device__ __forceinline__ float seen_magnitude(float x) {
  return isfinite(x) ? fabsf(x) : INFINITY;
}
__device__ __forceinline__ float seen_magnitude(const float4& v) {
  return fmaxf(fmaxf(seen_magnitude(v.x), seen_magnitude(v.y)),
               fmaxf(seen_magnitude(v.z), seen_magnitude(v.w)));
}

// Four codes as they lie, and their sum.
__device__ __forceinline__ uint32_t codes_of(const float4& v, float factor, int* sum) {
  if (!(factor > 0.0f)) {
    *sum = 0;
    return 0;
  }
  const int a = __float2int_rn(v.x * factor), b = __float2int_rn(v.y * factor),
            c = __float2int_rn(v.z * factor), d = __float2int_rn(v.w * factor);
  *sum = a + b + c + d;
  return (a & 255) | (b & 255) << 8 | (c & 255) << 16 | static_cast<uint32_t>(d) << 24;
}

__device__ __forceinline__ uint32_t fp8_codes_of(const float4& v, float factor) {
  if (!(factor > 0.0f)) return 0;
  const uint32_t low = __nv_cvt_float2_to_fp8x2({v.x * factor, v.y * factor}, __NV_SATFINITE,
                                                __NV_E4M3),
                 high = __nv_cvt_float2_to_fp8x2({v.z * factor, v.w * factor}, __NV_SATFINITE,
                                                 __NV_E4M3);
  return low | high << 16;
}

// A block of 32 channels, eight neighbouring threads'.
__device__ __forceinline__ void write_block(const float4& v, const Activations& out, int64_t t,
                                            int64_t k) {
  const unsigned together = 0xFFu << (threadIdx.x % 32 / 8 * 8);
  float max_abs = seen_magnitude(v);
  for (int d = 4; d > 0; d /= 2) max_abs = fmaxf(max_abs, __shfl_xor_sync(together, max_abs, d));
  int sum;
  const uint32_t codes = codes_of(v, code_factor(max_abs, 127.0f), &sum);
  for (int d = 4; d > 0; d /= 2) sum += __shfl_xor_sync(together, sum, d);
  *reinterpret_cast<uint32_t*>(out.codes + t * out.K_padded() + k) = codes;
  if (threadIdx.x % 8 == 0) {
    const float scale = isfinite(max_abs) ? max_abs / 127.0f : NAN;
    out.scales[k / kActBlock * out.T + t] = scale;
    out.sums[k / kActBlock * out.T + t] = scale * static_cast<float>(sum);
  }
}

// A block of kFp8Block channels, a warp's, of which those below K_padded are there.
__device__ __forceinline__ void write_fp8_block(const float4& v, const Activations& out, int64_t t,
                                                int64_t k) {
  static_assert(kFp8Block == 32 * kEach);
  const float max_abs = warp_max(seen_magnitude(v));
  if (k >= out.K_padded()) return;
  *reinterpret_cast<uint32_t*>(out.codes + t * out.K_padded() + k) =
      fp8_codes_of(v, code_factor(max_abs, kMaxE4M3));
  if (threadIdx.x % 32 == 0)
    out.scales[k / kFp8Block * out.T + t] = isfinite(max_abs) ? max_abs / kMaxE4M3 : NAN;
}

template <ActType kType>
__device__ __forceinline__ uint32_t half_pair(float a, float b) {
  if constexpr (kType == ActType::bf16) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
  const __half2 pair = __floats2half2_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// One scale a token, its own or, with the same code, the file's.
constexpr bool has_one_scale(ActType type) {
  return type == ActType::int8_token || type == ActType::fp8_token;
}
__device__ __forceinline__ float static_code(float x, float scale, float largest) {
  return fminf(fmaxf(x / scale, -largest), largest);
}
constexpr bool is_reduced(ActType type) {
  return has_one_scale(type) || type == ActType::int8_outlier;
}

// Channels k ... k + 3 of token t; `factor` where the token has one scale.
template <ActType kType>
__device__ __forceinline__ void write_chunk(const float4& v, const Activations& out, int64_t t,
                                            int64_t k, float factor) {
  if constexpr (kType == ActType::int8_block) {
    write_block(v, out, t, k);
  } else if constexpr (has_one_scale(kType)) {
    int sum;  // is for weights with a minimum, of which none has one scale a row here
    *reinterpret_cast<uint32_t*>(out.codes + t * out.K_padded() + k) =
        kType == ActType::fp8_token ? fp8_codes_of(v, factor) : codes_of(v, factor, &sum);
  } else if constexpr (kType == ActType::f32) {
    const float values[] = {v.x, v.y, v.z, v.w};
    for (int64_t i = 0; i < kEach && k + i < out.K; ++i) out.f32[t * out.K + k + i] = values[i];
  } else {
    *reinterpret_cast<uint2*>(out.half + t * out.K_padded() + k) = {half_pair<kType>(v.x, v.y),
                                                                    half_pair<kType>(v.z, v.w)};
  }
}

}  // namespace tandem
