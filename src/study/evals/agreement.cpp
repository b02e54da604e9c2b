#include "study/evals/agreement.h"

#include <algorithm>
#include <cmath>

namespace tandem {

PositionAgreement agreement(const float* baseline, double baseline_log_sum, const float* variant,
                            double variant_log_sum, int64_t vocab_size) {
  constexpr float kLeastLogProbability = -16.0f;
  const auto baseline_offset = static_cast<float>(baseline_log_sum);
  const auto variant_offset = static_cast<float>(variant_log_sum);
  double sum = 0;
  for (int64_t v = 0; v < vocab_size; ++v) {
    const float p = baseline[v] - baseline_offset;
    if (p <= kLeastLogProbability) continue;
    const float q = variant[v] - variant_offset;
    sum += static_cast<double>(std::exp(p)) * (static_cast<double>(p) - static_cast<double>(q));
  }
  const auto top = [vocab_size](const float* logits) {
    return std::max_element(logits, logits + vocab_size) - logits;
  };
  return {sum, top(baseline) == top(variant)};
}

}  // namespace tandem
