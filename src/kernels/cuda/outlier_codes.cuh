// A row of activations whose outliers stand apart: int8_outlier (ops.h).
#pragma once

#include <cmath>

#include "kernels/ops.h"
#include "kernels/rows.h"

namespace tandem {

// The largest magnitude below the threshold, and of the others; infinite when an x is not a number.
__device__ __forceinline__ float2 larger_apart(float2 largest, const float4& v) {
  for (const float x : {v.x, v.y, v.z, v.w}) {
    const float magnitude = isfinite(x) ? fabsf(x) : INFINITY;
    if (magnitude < kOutlierThreshold) {
      largest.x = fmaxf(largest.x, magnitude);
    } else {
      largest.y = fmaxf(largest.y, magnitude);
    }
  }
  return largest;
}

// What turns a token's elements into codes.
struct OutlierFactors {
  float below = 0, outlier = 0;
};

// Of token t whose largest magnitudes these are; its scales, too, where `writes`.
__device__ __forceinline__ OutlierFactors outlier_factors(const Activations& out, int64_t t,
                                                          float2 largest, bool writes) {
  const bool finite = isfinite(largest.y);
  if (writes) {
    out.scales[t] = largest.x / 127.0f;
    out.scales[out.T + t] = finite ? largest.y / kLargestOutlierCode : NAN;
  }
  return {finite && largest.x > kSmallestMaxAbs ? 127.0f / largest.x : 0.0f,
          finite && largest.y > 0.0f ? kLargestOutlierCode / largest.y : 0.0f};
}

// The three planes of channels k ... k + 3.
__device__ __forceinline__ void write_outliers(const float4& v, const Activations& out, int64_t t,
                                               int64_t k, const OutlierFactors& factors) {
  constexpr int kPlanes = 3;
  const float values[] = {v.x, v.y, v.z, v.w};
  uint32_t planes[kPlanes] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool is_outlier = !(fabsf(values[i]) < kOutlierThreshold);
    const float factor = is_outlier ? factors.outlier : factors.below;
    const int code = factor > 0.0f ? __float2int_rn(values[i] * factor) : 0;
    const int high = outlier_high(code), low = code - kOutlierRadix * high;
    planes[0] |= static_cast<uint32_t>(is_outlier ? 0 : code & 255) << (8 * i);
    planes[1] |= static_cast<uint32_t>(is_outlier ? high & 255 : 0) << (8 * i);
    planes[2] |= static_cast<uint32_t>(is_outlier ? low & 255 : 0) << (8 * i);
  }
  int8_t* codes = out.codes + t * kPlanes * out.K_padded() + k;
#pragma unroll
  for (int p = 0; p < kPlanes; ++p)
    *reinterpret_cast<uint32_t*>(codes + p * out.K_padded()) = planes[p];
}

}  // namespace tandem
