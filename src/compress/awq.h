// AWQ: input channels that carry large activations are scaled up before rounding, so that they
// round finely, and the inverse is folded into what makes the activations; then weights are clipped
// where a smaller range loses less than it gains. Definitions: mit-han-lab/llm-awq auto_scale and
// auto_clip, casper-hansen/AutoAWQ quantizer.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "compress/integer_grid.h"
#include "compress/matrix.h"

namespace tandem {

// Whether the weights' own magnitudes take part: s = xm^r / (wm^(1-r) + 1e-4), or s = xm^r alone as
// in llm-awq; `both` tries each.
enum class DuoScaling : uint8_t { off, on, both };

struct AwqOptions {
  IntegerGrid grid{4, 128, false};
  int num_ratios = 20;  // r = 0, 1/20, ..., 19/20
  DuoScaling duo_scaling = DuoScaling::on;
  int num_clips = 10;  // bounds tried: max|w| (1 - i/20), i = 0..9; 0 or 1: no clipping

  bool operator==(const AwqOptions&) const = default;
};

// wm[K]: the mean over all rows of all linears of |w| / (the largest |w| of its group + 1e-6).
std::vector<float> relative_magnitudes(std::span<const Matrix* const> linears, int64_t group);

// s[K], with sqrt(max s * min s) = 1; what is not finite is 1. `mean_magnitudes` is xm[K].
std::vector<float> awq_scales(std::span<const float> mean_magnitudes,
                              std::span<const float> relative_magnitudes, float ratio,
                              bool duo_scaling);

struct ScaleChoice {
  float ratio = 0.0f;
  bool duo_scaling = false;
  double loss = 0.0;
  std::vector<float> scales = {};  // [K]
};

// What a trial loses, of the weights that the linears hold during the call.
struct TrialLoss {
  std::function<double()> exact;
  std::function<double()> rough = {};  // the same of fewer tokens; empty: `exact` is cheap enough
};

// The scales with the least exact loss of those awq_scales gives; where there is a rough one, of
// the kFinalists that are best by it. For each trial the linears, which share their inputs, hold
// Q(W diag(s)) diag(s)^-1; afterwards they hold what they held before. Throws bad_file when no trial
// has a finite loss.
inline constexpr size_t kFinalists = 4;
ScaleChoice search_scales(std::span<Matrix* const> linears, std::span<const float> mean_magnitudes,
                          const AwqOptions& options, ThreadPool& pool, const TrialLoss& loss);

// Clamps each group of each row to the tried bound whose rounded weights have the least squared
// error of the group's output, dw G dw^T with G the group's block of `gram` [K, K] = sum of x x^T.
// That is AutoAWQ's error over all tokens of the Gram matrix at once.
void clip_weights(Matrix& w, std::span<const float> gram, const AwqOptions& options,
                  ThreadPool& pool);

}  // namespace tandem
