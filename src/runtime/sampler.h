// logits[V] -> the next token of one request. Each request has its own sampler, hence its own
// random numbers: what it samples does not depend on its neighbours in the batch.
//
// Order, as in transformers: repetition penalty, temperature, top-k, top-p, min-p. Among equal
// logits the lowest id comes first.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/random.h"
#include "runtime/request.h"

namespace tandem {

class Sampler {
 public:
  // params must have passed check_sampling; prompt ids lie in [0, vocab_size).
  Sampler(const SamplingParams& params, int64_t vocab_size, std::span<const int32_t> prompt);

  // Whether it takes the largest logit as it is, the lowest id of equals: so does a device.
  bool is_greedy() const { return params_.temperature == 0.0f && seen_.empty(); }
  // logits [V]. Throws system when a logit is NaN or none is finite. Allocates on the first call
  // only.
  int32_t sample(std::span<const float> logits);

 private:
  struct Candidate {
    float logit;   // after the penalty
    float weight;  // exp((logit - largest) / temperature), so the largest weight is 1
    int32_t id;
  };
  static bool ranks_lower(const Candidate& a, const Candidate& b);

  std::span<const float> penalize(std::span<const float> logits);
  void weigh(std::span<const float> logits, float largest);
  void keep_top_k();
  void keep_top_p();
  void keep_min_p();
  int32_t draw();

  SamplingParams params_;
  Random random_;
  std::vector<uint8_t> seen_;     // [V] 1: in the prompt or the answer; empty without a penalty
  std::vector<float> penalized_;  // [V]
  std::vector<Candidate> candidates_;  // those still in the draw
};

}  // namespace tandem
