#include "model/rope.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "formats/rope_scaling.h"

namespace tandem {
namespace {

double inverse_frequency(double theta, int64_t d, int64_t half) {
  return 1.0 / std::pow(theta, static_cast<double>(d) / static_cast<double>(half));
}

double scaled(double inv_freq, int64_t d, const ModelConfig& c) {
  switch (c.rope_scaling) {
    case RopeScaling::none:
    case RopeScaling::dynamic: return inv_freq;
    case RopeScaling::linear: return inv_freq / c.rope_factor;
    case RopeScaling::llama3:
      return inv_freq / llama3_divisor(inv_freq, c);
    case RopeScaling::divisors: return inv_freq / c.rope_divisors[static_cast<size_t>(d)];
  }
  return inv_freq;
}

}  // namespace

Rope::Rope(const ModelConfig& config)
    : theta_(config.rope_theta),
      factor_(config.rope_factor),
      dynamic_above_(config.rope_scaling == RopeScaling::dynamic ? config.rope_original_context : 0),
      inv_freq_(static_cast<size_t>(config.head_dim / 2)) {
  CHECK(config.rope_scaling != RopeScaling::divisors || config.rope_divisors.size() == inv_freq_.size(),
        "{} divisors for {} planes", config.rope_divisors.size(), inv_freq_.size());
  for (int64_t d = 0; d < half(); ++d) {
    const double inv_freq = scaled(inverse_frequency(theta_, d, half()), d, config);
    inv_freq_[static_cast<size_t>(d)] = static_cast<float>(inv_freq);
  }
}

const float* Rope::inverse_frequencies(int64_t length, float* scratch) const {
  if (dynamic_above_ == 0 || length <= dynamic_above_) return inv_freq_.data();
  const double D = 2.0 * static_cast<double>(half());
  const double stretch =
      factor_ * static_cast<double>(length) / static_cast<double>(dynamic_above_) - (factor_ - 1);
  const double theta = theta_ * std::pow(stretch, D / (D - 2));
  for (int64_t d = 0; d < half(); ++d) {
    scratch[d] = static_cast<float>(inverse_frequency(theta, d, half()));
  }
  return scratch;
}

void fill_cos_sin(const Context& context, const Batch& batch, const Rope& rope, float* scratch,
                  float* cos_sin) {
  const int64_t half = rope.half();
  for (const SequenceSlice& sequence : batch.sequences) {
    const float* inv_freq =
        rope.inverse_frequencies(std::max(sequence.context, sequence.length), scratch);
    context.pool->parallel_for(sequence.num_tokens, 32, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = sequence.first_token + begin; t < sequence.first_token + end; ++t) {
        for (int64_t d = 0; d < half; ++d) {
          const float angle = static_cast<float>(batch.positions[t]) * inv_freq[d];
          cos_sin[t * 2 * half + d] = std::cos(angle);
          cos_sin[t * 2 * half + half + d] = std::sin(angle);
        }
      }
    });
  }
}

}  // namespace tandem
