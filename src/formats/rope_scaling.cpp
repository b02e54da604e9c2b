#include <numbers>

#include "formats/model_config.h"

namespace tandem {

double llama3_inv_freq(double inv_freq, const ModelConfig& c) {
  const double turns =
      static_cast<double>(c.rope_original_context) * inv_freq / (2 * std::numbers::pi);
  if (turns < c.rope_low_freq_factor) return inv_freq / c.rope_factor;
  if (turns > c.rope_high_freq_factor) return inv_freq;
  const double smooth =
      (turns - c.rope_low_freq_factor) / (c.rope_high_freq_factor - c.rope_low_freq_factor);
  return (1 - smooth) * inv_freq / c.rope_factor + smooth * inv_freq;
}

}  // namespace tandem
