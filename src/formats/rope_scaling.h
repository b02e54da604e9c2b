// RoPE's llama3 scaling as divisors of the frequencies, and back: GGUF files hold the divisors
// (rope_freqs.weight), config.json the numbers that they come from.
#pragma once

#include <optional>

#include "formats/model_config.h"

namespace tandem {

// What llama3 scaling divides an inverse frequency by. Waves longer than the original context /
// low_freq_factor turn slower by the factor, those shorter than context / high_freq_factor stay,
// and a linear ramp joins the two.
double llama3_divisor(double inv_freq, const ModelConfig& config);

// The same model with llama3 scaling, or none, in place of divisors; nothing when no llama3 scaling
// with the ramp of all published models, from 1 to 4 turns, gives these divisors.
std::optional<ModelConfig> divisors_as_llama3(const ModelConfig& config);

}  // namespace tandem
