#include "compress/integer_grid.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"

namespace tandem {
namespace {

constexpr int kSearchSteps = 80;
constexpr float kSearchStep = 0.01f;
constexpr double kSearchNorm = 2.4;

struct Range {
  float low = 0;   // at most 0
  float high = 0;  // at least 0
};

Range range_of(const float* w, int64_t n) {
  Range range;
  for (int64_t i = 0; i < n; ++i) {
    range.low = std::min(range.low, w[i]);
    range.high = std::max(range.high, w[i]);
  }
  return range;
}

GroupFit fit_range(const IntegerGrid& grid, const Range& range) {
  const auto steps = static_cast<float>(grid.max_code());
  if (grid.symmetric) {
    const float magnitude = std::max(-range.low, range.high);
    return {stored_scale(magnitude / (steps / 2), grid.scale_type),
            static_cast<uint8_t>(grid.middle())};
  }
  const float scale = stored_scale((range.high - range.low) / steps, grid.scale_type);
  const float zero = std::clamp(std::nearbyintf(-range.low / scale), 0.0f, steps);
  return {scale, static_cast<uint8_t>(zero)};
}

float epsilon_of(ScaleType type) {
  switch (type) {
    case ScaleType::bf16: return 0x1p-7f;
    case ScaleType::f16: return 0x1p-10f;
    default: return std::numeric_limits<float>::epsilon();
  }
}

float max_of(ScaleType type) {
  switch (type) {
    case ScaleType::bf16: return 0x1.FEp127f;
    case ScaleType::f16: return 65504.0f;
    default: return std::numeric_limits<float>::max();
  }
}

}  // namespace

GridMatrix::GridMatrix(const IntegerGrid& grid_, int64_t N_, int64_t K_)
    : grid(grid_), N(N_), K(K_) {
  CHECK(grid.bits >= 2 && grid.bits <= 8 && grid.group >= 0 && K % grid.group_size(K) == 0,
        "bits {} group {} K {}", grid.bits, grid.group, K);
  codes.resize(static_cast<size_t>(N * K));
  scales.resize(static_cast<size_t>(N * groups()));
  zeros.assign(static_cast<size_t>(N * groups()), static_cast<uint8_t>(grid.middle()));
}

float stored_scale(float value, ScaleType type) {
  if (type == ScaleType::f32) return value == 0.0f ? epsilon_of(type) : value;
  std::byte bytes[4];
  store_scale(bytes, type, std::min(value, max_of(type)));
  const float stored = load_scale(bytes, type);
  return stored == 0.0f ? epsilon_of(type) : stored;
}

GroupFit fit_group(const IntegerGrid& grid, const float* w, int64_t n) {
  return fit_range(grid, range_of(w, n));
}

GroupFit search_group(const IntegerGrid& grid, const float* w, int64_t n) {
  const Range range = range_of(w, n);
  GroupFit best;
  double least = std::numeric_limits<double>::infinity();
  for (int step = 0; step < kSearchSteps; ++step) {
    const float share = 1.0f - kSearchStep * static_cast<float>(step);
    const GroupFit fit = fit_range(grid, {range.low * share, range.high * share});
    double error = 0;
    for (int64_t i = 0; i < n && error < least; ++i) {
      const float off = w[i] - value_of(fit, code_of(grid, fit, w[i]));
      error += std::pow(std::fabs(off), kSearchNorm);
    }
    if (error < least) {
      least = error;
      best = fit;
    }
  }
  return best;
}

uint8_t code_of(const IntegerGrid& grid, const GroupFit& fit, float w) {
  const float code = std::nearbyintf(w / fit.scale) + static_cast<float>(fit.zero);
  return static_cast<uint8_t>(std::clamp(code, 0.0f, static_cast<float>(grid.max_code())));
}

GridMatrix round_to_nearest(const Matrix& w, const IntegerGrid& grid, ThreadPool& pool) {
  GridMatrix out(grid, w.N, w.K);
  const int64_t size = grid.group_size(w.K), groups = out.groups();
  pool.parallel_for(w.N, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t g = 0; g < groups; ++g) {
        const float* values = w.row(n) + g * size;
        const GroupFit fit = fit_group(grid, values, size);
        out.set_fit(n, g, fit);
        uint8_t* codes = out.codes.data() + n * w.K + g * size;
        for (int64_t i = 0; i < size; ++i) codes[i] = code_of(grid, fit, values[i]);
      }
    }
  });
  return out;
}

void decode_row(const GridMatrix& matrix, int64_t n, float* out) {
  const int64_t size = matrix.grid.group_size(matrix.K);
  const uint8_t* codes = matrix.codes.data() + n * matrix.K;
  for (int64_t k = 0; k < matrix.K; ++k) {
    const auto channel = matrix.columns.empty() ? k : matrix.columns[static_cast<size_t>(k)];
    out[channel] = value_of(matrix.fit(n, k / size), codes[k]);
  }
}

}  // namespace tandem
