// How far a variant's next-token distributions are from the baseline's, position by position.
#pragma once

#include <cstdint>

namespace tandem {

struct PositionAgreement {
  double kl_divergence = 0;  // KL(baseline || variant) in nats
  bool same_top = false;     // both find the same token most likely (of equals, the lowest id)
};

// Logits [V] with their log_sum_exp. Tokens that the baseline gives less than exp(-16) are left out
// of the sum, as llama.cpp does.
PositionAgreement agreement(const float* baseline, double baseline_log_sum, const float* variant,
                            double variant_log_sum, int64_t vocab_size);

}  // namespace tandem
