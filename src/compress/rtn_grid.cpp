#include "compress/rtn_grid.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

float epsilon_of(ScaleType type) {
  return type == ScaleType::bf16 ? 0x1p-7f : type == ScaleType::f16 ? 0x1p-10f : 0x1p-23f;
}

// Signed as the library counts: from -2^(bits-1) on.
struct SignedFit {
  float scale;
  float zero;
};

SignedFit fit(const float* w, int64_t n, const IntegerGrid& grid) {
  const auto [low, high] = std::minmax_element(w, w + n);
  const float min = std::min(*low, 0.0f), max = std::max(*high, 0.0f);
  const auto range = static_cast<float>(grid.max_code()),
             bottom = static_cast<float>(-grid.middle());
  const auto rounded = [&](float value) { return round_to_type(value, grid.scale_type); };
  if (grid.symmetric) {
    const float scale = rounded(std::max(-min, max) / (range / 2));
    return {scale == 0.0f ? epsilon_of(grid.scale_type) : scale, 0};
  }
  const float scale = rounded(rounded(max - min) / range);
  // NOTE: what the library makes of 0 / 0 is 0, after all.
  if (scale == 0.0f) return {epsilon_of(grid.scale_type), min == 0.0f ? 0.0f : -bottom - 1};
  const float zero = rounded(bottom - rounded(min / scale));
  return {scale, std::nearbyintf(std::clamp(zero, bottom, -bottom - 1))};
}

void round_group(const float* w, int64_t n, const IntegerGrid& grid, const SignedFit& fit,
                 uint8_t* codes) {
  const auto bottom = static_cast<float>(-grid.middle());
  for (int64_t i = 0; i < n; ++i) {
    float value = round_to_type(w[i] / fit.scale, grid.scale_type);
    if (!grid.symmetric) value = round_to_type(value + fit.zero, grid.scale_type);
    value = std::nearbyintf(std::clamp(value, bottom, -bottom - 1));
    codes[i] = static_cast<uint8_t>(value - bottom);
  }
}

}  // namespace

float round_to_type(float value, ScaleType type) {
  switch (type) {
    case ScaleType::bf16:
      return bf16_to_float(float_to_bf16(value));
    case ScaleType::f16:
      return f16_to_float(float_to_f16(value));
    default:
      return value;
  }
}

GridMatrix round_to_grid(const Matrix& w, const IntegerGrid& grid, ThreadPool& pool) {
  GridMatrix out(grid, w.N, w.K);
  const int64_t size = grid.group_size(w.K), groups = out.groups();
  pool.parallel_for(w.N, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t g = 0; g < groups; ++g) {
        const float* values = w.row(n) + g * size;
        const SignedFit signed_fit = fit(values, size, grid);
        out.set_fit(n, g,
                    {signed_fit.scale,
                     static_cast<uint8_t>(signed_fit.zero + static_cast<float>(grid.middle()))});
        round_group(values, size, grid, signed_fit, out.codes.data() + n * w.K + g * size);
      }
    }
  });
  return out;
}

}  // namespace tandem
