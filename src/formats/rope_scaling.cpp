#include "formats/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace tandem {
namespace {

constexpr double kLowTurns = 1, kHighTurns = 4;
// The converters compute frequencies and divisors in fp32: a few roundings.
constexpr double kTolerance = 2e-6;
constexpr int kMaxLogContext = 24;

double inverse_frequency(const ModelConfig& c, size_t plane) {
  return std::pow(c.rope_theta,
                  -2.0 * static_cast<double>(plane) / static_cast<double>(c.head_dim));
}

bool gives_divisors(const ModelConfig& llama3, const std::vector<float>& divisors) {
  for (size_t d = 0; d < divisors.size(); ++d) {
    const double divisor = llama3_divisor(inverse_frequency(llama3, d), llama3);
    if (std::fabs(divisor / divisors[d] - 1) > kTolerance) return false;
  }
  return true;
}

// The original contexts that may have made these divisors: the one that a plane on the ramp tells,
// or any power of two.
std::vector<int64_t> candidates(const ModelConfig& c, double factor) {
  for (size_t d = 0; d < c.rope_divisors.size(); ++d) {
    const double share =
        (1 / static_cast<double>(c.rope_divisors[d]) - 1 / factor) / (1 - 1 / factor);
    if (share < kTolerance || share > 1 - kTolerance) continue;
    const double turns = kLowTurns + share * (kHighTurns - kLowTurns);
    const double context = turns * 2 * std::numbers::pi / inverse_frequency(c, d);
    if (!(context >= 1 && context <= 1 << kMaxLogContext)) return {};
    return {std::llround(context)};
  }
  std::vector<int64_t> contexts;
  for (int log = 0; log <= kMaxLogContext; ++log) contexts.push_back(int64_t{1} << log);
  return contexts;
}

}  // namespace

double llama3_divisor(double inv_freq, const ModelConfig& c) {
  const double turns =
      static_cast<double>(c.rope_original_context) * inv_freq / (2 * std::numbers::pi);
  if (turns < c.rope_low_freq_factor) return c.rope_factor;
  if (turns > c.rope_high_freq_factor) return 1;
  const double kept =
      (turns - c.rope_low_freq_factor) / (c.rope_high_freq_factor - c.rope_low_freq_factor);
  return 1 / ((1 - kept) / c.rope_factor + kept);
}

std::optional<ModelConfig> divisors_as_llama3(const ModelConfig& c) {
  CHECK(c.rope_scaling == RopeScaling::divisors, "{}", rope_scaling_name(c.rope_scaling));
  ModelConfig out = c;
  out.rope_divisors.clear();
  out.rope_factor = *std::max_element(c.rope_divisors.begin(), c.rope_divisors.end());
  out.rope_low_freq_factor = kLowTurns;
  out.rope_high_freq_factor = kHighTurns;
  out.rope_scaling = RopeScaling::llama3;
  if (std::ranges::all_of(c.rope_divisors, [](float divisor) { return divisor == 1; })) {
    out.rope_scaling = RopeScaling::none;
    return out;
  }
  if (out.rope_factor <= 1) return std::nullopt;
  for (const int64_t context : candidates(c, out.rope_factor)) {
    out.rope_original_context = context;
    if (gives_divisors(out, c.rope_divisors)) return out;
  }
  return std::nullopt;
}

}  // namespace tandem
