#include "compress/awq.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace tandem {
namespace {

constexpr float kLeastScale = 1e-4f;
constexpr float kLeastMagnitude = 1e-6f;
constexpr int kClipSteps = 20;
constexpr int64_t kRowsPerTask = 4;

// Half to even, |x| < 2^22: the addition leaves no bits below 1, and the loop becomes vector code.
inline float round_even(float x) { return (x + 12582912.0f) - 12582912.0f; }

// out[n] = the numbers of `fit` nearest to w[n].
void round_group(const IntegerGrid& grid, const GroupFit& fit, const float* w, int64_t n,
                 float* out) {
  const auto zero = static_cast<float>(fit.zero), largest = static_cast<float>(grid.max_code());
  const float low = -zero, high = largest - zero;
  for (int64_t i = 0; i < n; ++i) {
    out[i] = std::clamp(round_even(w[i] / fit.scale), low, high) * fit.scale;
  }
}

// out = Q(W diag(s)) diag(s)^-1.
void round_scaled(const Matrix& w, std::span<const float> scales, const IntegerGrid& grid,
                  ThreadPool& pool, Matrix& out) {
  const int64_t size = grid.group_size(w.K);
  pool.parallel_for(w.N, kRowsPerTask, [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) {
      const float* from = w.row(n);
      float* to = out.row(n);
      for (int64_t k = 0; k < w.K; ++k) to[k] = from[k] * scales[static_cast<size_t>(k)];
      for (int64_t k = 0; k < w.K; k += size) {
        round_group(grid, fit_group(grid, to + k, size), to + k, size, to + k);
      }
      for (int64_t k = 0; k < w.K; ++k) to[k] /= scales[static_cast<size_t>(k)];
    }
  });
}

// d G d^T of a group: G is the block at `first` of gram [K, K]. product holds `size` floats.
double squared_error(std::span<const float> gram, int64_t K, int64_t first, const float* d,
                     int64_t size, float* product) {
  std::fill_n(product, size, 0.0f);
  for (int64_t i = 0; i < size; ++i) {
    const float* row = gram.data() + (first + i) * K + first;
    for (int64_t j = 0; j < size; ++j) product[j] += d[i] * row[j];
  }
  double error = 0.0;
  for (int64_t i = 0; i < size; ++i) error += static_cast<double>(d[i]) * product[i];
  return error;
}

// The bound of one group that clip_weights takes. scratch holds 2 * size floats.
float best_bound(const float* w, int64_t first, int64_t size, std::span<const float> gram,
                 int64_t K, const AwqOptions& options, float* scratch) {
  float magnitude = 0.0f;
  for (int64_t i = 0; i < size; ++i) magnitude = std::max(magnitude, std::fabs(w[i]));
  float best = magnitude;
  double least = std::numeric_limits<double>::infinity();
  float* d = scratch;
  for (int step = 0; step < options.num_clips; ++step) {
    const float bound = magnitude * (1.0f - static_cast<float>(step) / kClipSteps);
    for (int64_t i = 0; i < size; ++i) d[i] = std::clamp(w[i], -bound, bound);
    round_group(options.grid, fit_group(options.grid, d, size), d, size, d);
    for (int64_t i = 0; i < size; ++i) d[i] -= w[i];
    const double error = squared_error(gram, K, first, d, size, scratch + size);
    if (error < least) {
      least = error;
      best = bound;
    }
  }
  return best;
}

// Every ratio, without scales and loss.
std::vector<ScaleChoice> all_trials(const AwqOptions& options) {
  std::vector<ScaleChoice> trials;
  for (const bool duo : {false, true}) {
    if (options.duo_scaling != DuoScaling::both && duo != (options.duo_scaling == DuoScaling::on)) {
      continue;
    }
    for (int i = 0; i < options.num_ratios; ++i) {
      const float ratio = static_cast<float>(i) / static_cast<float>(options.num_ratios);
      trials.push_back({ratio, duo});
    }
  }
  return trials;
}

}  // namespace

std::vector<float> relative_magnitudes(std::span<const Matrix* const> linears, int64_t group) {
  const int64_t K = linears.front()->K, size = group == 0 ? K : group;
  CHECK(K % size == 0, "K {} group {}", K, size);
  std::vector<double> sums(static_cast<size_t>(K));
  int64_t num_rows = 0;
  for (const Matrix* w : linears) {
    CHECK(w->K == K, "K {} and {}", w->K, K);
    num_rows += w->N;
    for (int64_t n = 0; n < w->N; ++n) {
      const float* row = w->row(n);
      for (int64_t first = 0; first < K; first += size) {
        float largest = 0.0f;
        for (int64_t k = first; k < first + size; ++k)
          largest = std::max(largest, std::fabs(row[k]));
        for (int64_t k = first; k < first + size; ++k) {
          sums[static_cast<size_t>(k)] += std::fabs(row[k]) / (largest + kLeastMagnitude);
        }
      }
    }
  }
  std::vector<float> means(sums.size());
  for (size_t k = 0; k < sums.size(); ++k) {
    means[k] = static_cast<float>(sums[k] / static_cast<double>(num_rows));
  }
  return means;
}

std::vector<float> awq_scales(std::span<const float> mean_magnitudes,
                              std::span<const float> relative_magnitudes, float ratio,
                              bool duo_scaling) {
  std::vector<float> scales(mean_magnitudes.size());
  float low = std::numeric_limits<float>::infinity(), high = 0.0f;
  for (size_t k = 0; k < scales.size(); ++k) {
    float scale = std::pow(mean_magnitudes[k], ratio);
    if (duo_scaling) scale /= std::pow(relative_magnitudes[k], 1.0f - ratio) + 1e-4f;
    scales[k] = std::max(scale, kLeastScale);
    low = std::min(low, scales[k]);
    high = std::max(high, scales[k]);
  }
  const float middle = std::sqrt(high * low);
  for (float& scale : scales) {
    scale /= middle;
    if (!std::isfinite(scale)) scale = 1.0f;
  }
  return scales;
}

ScaleChoice search_scales(std::span<Matrix* const> linears, std::span<const float> mean_magnitudes,
                          const AwqOptions& options, ThreadPool& pool, const TrialLoss& loss) {
  const std::vector<const Matrix*> readable(linears.begin(), linears.end());
  const std::vector<float> wm = relative_magnitudes(readable, options.grid.group);
  CHECK(mean_magnitudes.size() == wm.size(), "{} of {}", mean_magnitudes.size(), wm.size());
  std::vector<Matrix> originals;
  for (const Matrix* w : linears) originals.push_back(*w);

  std::vector<ScaleChoice> trials = all_trials(options);
  const auto judge = [&](const std::function<double()>& judged) {
    for (ScaleChoice& trial : trials) {
      trial.scales = awq_scales(mean_magnitudes, wm, trial.ratio, trial.duo_scaling);
      for (size_t l = 0; l < linears.size(); ++l) {
        round_scaled(originals[l], trial.scales, options.grid, pool, *linears[l]);
      }
      trial.loss = judged();
    }
    std::erase_if(trials, [](const ScaleChoice& trial) { return !std::isfinite(trial.loss); });
    std::ranges::stable_sort(trials, {}, &ScaleChoice::loss);
  };
  if (loss.rough && trials.size() > kFinalists) {
    judge(loss.rough);
    trials.resize(std::min(trials.size(), kFinalists));
  }
  judge(loss.exact);
  for (size_t l = 0; l < linears.size(); ++l) *linears[l] = std::move(originals[l]);
  if (trials.empty()) {
    fail(ErrorKind::bad_file,
         "awq: no trial of {} has a finite loss; are there NaN among the weights?",
         options.num_ratios);
  }
  return std::move(trials.front());
}

void clip_weights(Matrix& w, std::span<const float> gram, const AwqOptions& options,
                  ThreadPool& pool) {
  if (options.num_clips <= 1) return;
  CHECK(options.num_clips <= kClipSteps, "num_clips {}", options.num_clips);
  CHECK(static_cast<int64_t>(gram.size()) == w.K * w.K, "gram {} K {}", gram.size(), w.K);
  const int64_t size = options.grid.group_size(w.K);
  std::vector<std::vector<float>> scratch(static_cast<size_t>(pool.size()));
  for (auto& floats : scratch) floats.resize(static_cast<size_t>(2 * size));
  pool.parallel_for(w.N, kRowsPerTask, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t first = 0; first < w.K; first += size) {
        float* group = w.row(n) + first;
        const float bound = best_bound(group, first, size, gram, w.K, options,
                                       scratch[static_cast<size_t>(thread)].data());
        for (int64_t i = 0; i < size; ++i) group[i] = std::clamp(group[i], -bound, bound);
      }
    }
  });
}

}  // namespace tandem
