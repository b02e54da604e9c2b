// Text -> perplexity by llama.cpp's protocol: windows of 512 tokens that do not overlap, the second
// half of each scored, so positions 256..510 predict tokens 257..511.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace tandem {

inline constexpr int64_t kWindowTokens = 512;
inline constexpr int64_t kFirstScored = kWindowTokens / 2;
inline constexpr int64_t kScoredPerWindow = kWindowTokens - 1 - kFirstScored;

// Gives the logits [V] of positions first.. of a window, in order, as Scorer::score does.
using LogitSource = std::function<void(std::span<const int32_t> tokens, int64_t first,
                                       const std::function<void(int64_t, const float*)>& sink)>;

// The first num_windows windows of the text; with bos_id >= 0 it goes in front of the text and then
// replaces the first token of each window, as llama.cpp has it. Throws usage when the text is
// shorter.
std::vector<std::vector<int32_t>> cut_windows(std::span<const int32_t> text_tokens,
                                              int64_t num_windows, int32_t bos_id);

// Logits of the scored positions of one window: [kScoredPerWindow, V].
std::vector<float> scored_logits(const LogitSource& source, std::span<const int32_t> window,
                                 int64_t vocab_size);

// log sum exp of logits[V], exponentials in float, their sum in double. NaN when a logit is NaN.
double log_sum_exp(const float* logits, int64_t vocab_size);

// Mean and its standard error, sqrt(variance / (n - 1)); the error is 0 for one value.
struct MeanError {
  double mean = 0;
  double error = 0;
};
MeanError mean_error(std::span<const double> values);

// exp(mean) of negative log-likelihoods and its standard error, perplexity * error of the mean.
MeanError perplexity(std::span<const double> nll);

}  // namespace tandem
