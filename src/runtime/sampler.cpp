#include "runtime/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace tandem {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The largest logit. Throws when one is NaN or the largest is not finite.
float checked_max(std::span<const float> logits) {
  // Lanes, because a single running maximum is one long chain of dependent compares.
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> lanes;
  std::array<int, kLanes> nan{};
  lanes.fill(-kInfinity);
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float logit = logits[i + lane];
      lanes[lane] = logit > lanes[lane] ? logit : lanes[lane];
      nan[lane] |= logit != logit;
    }
  }
  for (; i < logits.size(); ++i) {
    lanes[0] = std::max(lanes[0], logits[i]);
    nan[0] |= logits[i] != logits[i];
  }
  if (std::ranges::find(nan, 1) != nan.end()) {
    const auto it = std::ranges::find_if(logits, [](float logit) { return logit != logit; });
    fail(ErrorKind::system, "the logit of token {} is NaN", it - logits.begin());
  }
  const float largest = *std::ranges::max_element(lanes);
  if (!std::isfinite(largest)) {
    fail(ErrorKind::system, "the largest of {} logits is {}; expected a finite number",
         logits.size(), largest);
  }
  return largest;
}

}  // namespace

Sampler::Sampler(const SamplingParams& params, int64_t vocab_size, std::span<const int32_t> prompt)
    : params_(params), random_(params.seed) {
  if (params.repetition_penalty == 1.0f) return;
  seen_.resize(static_cast<size_t>(vocab_size));
  for (const int32_t id : prompt) seen_[id] = 1;
}

int32_t Sampler::sample(std::span<const float> logits) {
  if (!seen_.empty()) logits = penalize(logits);
  const float largest = checked_max(logits);
  int32_t token;
  if (params_.temperature == 0.0f) {
    token = static_cast<int32_t>(std::ranges::find(logits, largest) - logits.begin());
  } else {
    weigh(logits, largest);
    keep_top_k();
    keep_top_p();
    keep_min_p();
    token = draw();
  }
  if (!seen_.empty()) seen_[token] = 1;
  return token;
}

std::span<const float> Sampler::penalize(std::span<const float> logits) {
  CHECK(logits.size() == seen_.size(), "logits {} vocabulary {}", logits.size(), seen_.size());
  penalized_.assign(logits.begin(), logits.end());
  for (size_t id = 0; id < seen_.size(); ++id) {
    if (!seen_[id]) continue;
    float& logit = penalized_[id];
    logit = logit > 0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
  }
  return penalized_;
}

// Ids are distinct, so this is a total order: what is kept does not depend on the sorting
// algorithm.
bool Sampler::ranks_lower(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit < b.logit : a.id > b.id;
}

void Sampler::weigh(std::span<const float> logits, float largest) {
  candidates_.resize(logits.size());
  for (size_t id = 0; id < logits.size(); ++id) {
    const float weight = std::exp((logits[id] - largest) / params_.temperature);
    candidates_[id] = {logits[id], weight, static_cast<int32_t>(id)};
  }
}

void Sampler::keep_top_k() {
  const size_t k = static_cast<size_t>(params_.top_k);
  if (k == 0 || k >= candidates_.size()) return;
  const auto ranks_higher = [](const Candidate& a, const Candidate& b) {
    return ranks_lower(b, a);
  };
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(k),
                    candidates_.end(), ranks_higher);
  candidates_.resize(k);
}

// The fewest candidates, largest first, that hold at least top_p of the weight. A heap, because
// they are few as a rule and sorting the whole vocabulary costs as much as a decode step.
void Sampler::keep_top_p() {
  if (params_.top_p == 1.0f) return;
  double total = 0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  const double wanted = params_.top_p * total;
  std::make_heap(candidates_.begin(), candidates_.end(), ranks_lower);
  auto kept = candidates_.end();
  for (double mass = 0; kept != candidates_.begin() && mass < wanted;) {
    std::pop_heap(candidates_.begin(), kept, ranks_lower);
    --kept;
    mass += kept->weight;
  }
  candidates_.erase(candidates_.begin(), kept);
}

void Sampler::keep_min_p() {
  if (params_.min_p == 0.0f) return;
  std::erase_if(candidates_, [this](const Candidate& c) { return c.weight < params_.min_p; });
}

int32_t Sampler::draw() {
  double total = 0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  double left = random_.uniform() * total;
  int32_t last = -1;
  for (const Candidate& candidate : candidates_) {
    if (candidate.weight == 0.0f) continue;
    last = candidate.id;
    left -= candidate.weight;
    if (left < 0) break;
  }
  return last;  // rounding may leave a residue after the last candidate: it is the one meant
}

}  // namespace tandem
