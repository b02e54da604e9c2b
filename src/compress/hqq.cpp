#include "compress/hqq.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

constexpr float kLargestInverse = 2e4f;
constexpr float kSmallestRange = 1e-4f;
constexpr int64_t kRowsPerTask = 8;
constexpr int64_t kLanes = 8;  // partial sums, so that the loop over a group becomes vector code

float rounded_scale(float scale, ScaleType type) {
  std::array<std::byte, 4> bytes;
  store_scale(bytes.data(), type, scale);
  return load_scale(bytes.data(), type);
}

// Half to even, |x| < 2^22: the addition leaves no bits below 1.
inline float round_even(float x) { return (x + 12582912.0f) - 12582912.0f; }

inline float code_of(float w, float inverse, float zero, float largest) {
  return std::clamp(round_even(w * inverse + zero), 0.0f, largest);
}

struct Group {
  float scale, inverse, zero;
};

Group first_fit(const float* w, int64_t n, const IntegerGrid& grid, bool spans_zero) {
  auto [low_at, high_at] = std::minmax_element(w, w + n);
  const float low = spans_zero ? std::min(*low_at, 0.0f) : *low_at;
  const float high = spans_zero ? std::max(*high_at, 0.0f) : *high_at;
  const float largest = static_cast<float>((1 << grid.bits) - 1);
  const float inverse =
      high - low <= kSmallestRange ? 1.0f : std::min(largest / (high - low), kLargestInverse);
  const float scale = rounded_scale(1.0f / inverse, grid.scale_type);
  return {scale, 1.0f / scale, -low / scale};
}

// The part of d that the zero should not follow: sign(d) max(|d| - |d|^(p-1) / beta, 0).
float outlying_part(float d, const HqqOptions& options) {
  const float magnitude = std::fabs(d);
  const float part = magnitude - std::pow(magnitude, options.p - 1.0f) / options.beta;
  return part > 0.0f ? std::copysign(part, d) : 0.0f;
}

struct Pass {
  float sum_error;  // of |d|
  float zero;       // the better one
};

// One iteration of a group. `threshold` is the magnitude below which no part of d is outlying: most
// groups have no d above it and need no powers.
Pass iterate(const float* w, int64_t n, const Group& group, float largest, float threshold,
             const HqqOptions& options) {
  float sum_error[kLanes] = {}, sum_zero[kLanes] = {}, largest_error[kLanes] = {};
  const auto take = [&](int64_t k, int64_t lane) {
    const float q = code_of(w[k], group.inverse, group.zero, largest);
    const float error = std::fabs(w[k] - (q - group.zero) * group.scale);
    sum_error[lane] += error;
    largest_error[lane] = std::max(largest_error[lane], error);
    sum_zero[lane] += q - w[k] * group.inverse;
  };
  int64_t k = 0;
  for (; k + kLanes <= n; k += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) take(k + lane, lane);
  }
  for (; k < n; ++k) take(k, 0);

  Pass pass{0.0f, 0.0f};
  float worst = 0.0f;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    pass.sum_error += sum_error[lane];
    pass.zero += sum_zero[lane];
    worst = std::max(worst, largest_error[lane]);
  }
  if (worst > threshold) {
    for (k = 0; k < n; ++k) {
      const float q = code_of(w[k], group.inverse, group.zero, largest);
      const float d = w[k] - (q - group.zero) * group.scale;
      pass.zero += outlying_part(d, options) * group.inverse;
    }
  }
  pass.zero /= static_cast<float>(n);
  return pass;
}

// Moves the zeros of `fitted` until the mean error no longer falls.
void improve_zeros(const Matrix& w, const HqqOptions& options, ThreadPool& pool,
                   RealZeroMatrix& fitted) {
  const int64_t G = fitted.groups(), group = w.K / G;
  const float largest = static_cast<float>((1 << fitted.grid.bits) - 1);
  const float threshold = hqq_threshold(options);
  std::vector<double> row_errors(static_cast<size_t>(w.N));
  double best = std::numeric_limits<double>::infinity();
  for (fitted.iterations = 0; fitted.iterations < options.max_iterations;) {
    pool.parallel_for(w.N, kRowsPerTask, [&](int64_t begin, int64_t end, int) {
      for (int64_t n = begin; n < end; ++n) {
        double sum = 0.0;
        for (int64_t g = 0; g < G; ++g) {
          const size_t at = static_cast<size_t>(n * G + g);
          const float scale = fitted.scales[at];
          const Pass pass =
              iterate(w.row(n) + g * group, group, {scale, 1.0f / scale, fitted.zeros[at]}, largest,
                      threshold, options);
          fitted.zeros[at] = pass.zero;
          sum += pass.sum_error;
        }
        row_errors[static_cast<size_t>(n)] = sum;
      }
    });
    ++fitted.iterations;
    double error = 0.0;
    for (const double row : row_errors) error += row;
    if (error >= best) return;
    best = error;
  }
}

RealZeroMatrix fit(const Matrix& w, const IntegerGrid& grid, bool spans_zero,
                   const HqqOptions& options, ThreadPool& pool) {
  CHECK(!grid.symmetric && grid.bits >= 2 && grid.bits <= 8, "bits {}", grid.bits);
  CHECK(grid.group == 0 || w.K % grid.group == 0, "K {} group {}", w.K, grid.group);
  RealZeroMatrix fitted{grid, w.N, w.K, {}, {}, {}, 0};
  const int64_t G = fitted.groups(), group = w.K / G;
  fitted.codes.resize(static_cast<size_t>(w.N * w.K));
  fitted.scales.resize(static_cast<size_t>(w.N * G));
  fitted.zeros.resize(static_cast<size_t>(w.N * G));
  pool.parallel_for(w.N, kRowsPerTask, [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t g = 0; g < G; ++g) {
        const Group first = first_fit(w.row(n) + g * group, group, grid, spans_zero);
        fitted.scales[static_cast<size_t>(n * G + g)] = first.scale;
        fitted.zeros[static_cast<size_t>(n * G + g)] = first.zero;
      }
    }
  });
  improve_zeros(w, options, pool, fitted);
  return fitted;
}

// Codes of the fitted scales and zeros.
void make_codes(const Matrix& w, ThreadPool& pool, RealZeroMatrix& fitted) {
  const int64_t G = fitted.groups(), group = w.K / G;
  const float largest = static_cast<float>((1 << fitted.grid.bits) - 1);
  pool.parallel_for(w.N, kRowsPerTask, [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) {
      const float* row = w.row(n);
      uint8_t* codes = fitted.codes.data() + n * w.K;
      for (int64_t g = 0; g < G; ++g) {
        const float inverse = 1.0f / fitted.scales[static_cast<size_t>(n * G + g)];
        const float zero = fitted.zeros[static_cast<size_t>(n * G + g)];
        for (int64_t k = g * group; k < (g + 1) * group; ++k) {
          codes[k] = static_cast<uint8_t>(code_of(row[k], inverse, zero, largest));
        }
      }
    }
  });
}

}  // namespace

float hqq_threshold(const HqqOptions& options) {
  return std::pow(options.beta, -1.0f / (2.0f - options.p)) * 0.999f;
}

RealZeroMatrix hqq(const Matrix& w, const IntegerGrid& grid, const HqqOptions& options,
                   ThreadPool& pool) {
  RealZeroMatrix fitted = fit(w, grid, /*spans_zero=*/false, options, pool);
  make_codes(w, pool, fitted);
  return fitted;
}

GridMatrix hqq_integer_zeros(const Matrix& w, const IntegerGrid& grid, const HqqOptions& options,
                             ThreadPool& pool) {
  RealZeroMatrix fitted = fit(w, grid, /*spans_zero=*/true, options, pool);
  const float largest = static_cast<float>((1 << grid.bits) - 1);
  std::vector<uint8_t> zeros(fitted.zeros.size());
  for (size_t i = 0; i < zeros.size(); ++i) {
    fitted.zeros[i] = std::clamp(round_even(fitted.zeros[i]), 0.0f, largest);
    zeros[i] = static_cast<uint8_t>(fitted.zeros[i]);
  }
  make_codes(w, pool, fitted);
  GridMatrix rounded;
  rounded.grid = grid;
  rounded.N = w.N;
  rounded.K = w.K;
  rounded.codes = std::move(fitted.codes);
  rounded.scales = std::move(fitted.scales);
  rounded.zeros = std::move(zeros);
  return rounded;
}

void store_q4_1_row(const RealZeroMatrix& fitted, const float* row, int64_t n, std::byte* out) {
  CHECK(fitted.grid.bits == 4 && fitted.grid.group == 32, "bits {} group {}", fitted.grid.bits,
        fitted.grid.group);
  const int64_t G = fitted.groups();
  for (int64_t g = 0; g < G; ++g, row += 32, out += 20) {
    const size_t at = static_cast<size_t>(n * G + g);
    const uint16_t d = float_to_f16(fitted.scales[at]);
    const uint16_t m = float_to_f16(-fitted.zeros[at] * fitted.scales[at]);
    std::memcpy(out, &d, 2);
    std::memcpy(out + 2, &m, 2);
    const float inverse = f16_to_float(d) == 0.0f ? 0.0f : 1.0f / f16_to_float(d);
    const float low = f16_to_float(m);
    const auto code = [&](int64_t k) {
      return static_cast<int>(code_of(row[k] - low, inverse, 0.0f, 15.0f));
    };
    for (int64_t j = 0; j < 16; ++j)
      out[4 + j] = static_cast<std::byte>(code(j) | code(j + 16) << 4);
  }
}

}  // namespace tandem
