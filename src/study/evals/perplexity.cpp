#include "study/evals/perplexity.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace tandem {

std::vector<std::vector<int32_t>> cut_windows(std::span<const int32_t> text_tokens,
                                              int64_t num_windows, int32_t bos_id) {
  const int64_t needed = num_windows * kWindowTokens;
  if (static_cast<int64_t>(text_tokens.size()) < needed) {
    fail(ErrorKind::usage,
         "study text: has {} tokens, perplexity over {} windows of {} needs {}; give a longer "
         "--text",
         text_tokens.size(), num_windows, kWindowTokens, needed);
  }
  std::vector<int32_t> text(text_tokens.begin(), text_tokens.end());
  if (bos_id >= 0) text.insert(text.begin(), bos_id);
  std::vector<std::vector<int32_t>> windows;
  for (int64_t w = 0; w < num_windows; ++w) {
    const auto begin = text.begin() + w * kWindowTokens;
    windows.emplace_back(begin, begin + kWindowTokens);
    if (bos_id >= 0) windows.back().front() = bos_id;
  }
  return windows;
}

std::vector<float> scored_logits(const LogitSource& source, std::span<const int32_t> window,
                                 int64_t vocab_size) {
  std::vector<float> logits(static_cast<size_t>(kScoredPerWindow * vocab_size));
  int64_t count = 0;
  source(window, kFirstScored, [&](int64_t position, const float* row) {
    if (position >= kFirstScored + kScoredPerWindow) return;  // the last predicts the next window
    CHECK(position == kFirstScored + count, "position {} after {} rows", position, count);
    std::copy_n(row, vocab_size, logits.data() + count * vocab_size);
    ++count;
  });
  CHECK(count == kScoredPerWindow, "{} rows of logits, expected {}", count, kScoredPerWindow);
  return logits;
}

double log_sum_exp(const float* logits, int64_t vocab_size) {
  const float largest = *std::max_element(logits, logits + vocab_size);
  double sum = 0;
  for (int64_t v = 0; v < vocab_size; ++v) {
    sum += static_cast<double>(std::exp(logits[v] - largest));
  }
  return static_cast<double>(largest) + std::log(sum);
}

MeanError mean_error(std::span<const double> values) {
  if (values.empty()) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    return {nan, nan};
  }
  const auto n = static_cast<double>(values.size());
  double sum = 0;
  for (const double value : values) sum += value;
  const double mean = sum / n;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return {mean, values.size() < 2 ? 0 : std::sqrt(squares / n / (n - 1))};
}

MeanError perplexity(std::span<const double> nll) {
  const MeanError log_perplexity = mean_error(nll);
  const double value = std::exp(log_perplexity.mean);
  return {value, value * log_perplexity.error};
}

}  // namespace tandem
