// The times of an engine's steps -> prefill and decode throughput and the time to the first token.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem {

struct StepTiming {
  int64_t end_ns = 0;
  int64_t num_tokens = 0;        // tokens that came out of this step
  int64_t num_first_tokens = 0;  // of these, the first of their sequence
  int64_t num_finished = 0;      // sequences that ended with this step
};

struct Speed {
  double first_token_seconds = 0;        // from submit to the first token of the last sequence
  double prefill_tokens_per_second = 0;  // over all sequences
  double decode_tokens_per_second = 0;   // over all sequences, while all of them decode
  double decode_seconds = 0;             // length of that window
  int64_t decode_tokens = 0;
};

// Decoding is timed from the step that gave the last sequence its first token to the step in which
// the first sequence ended, so no prefill and no half-empty batch is in it. Throws usage when there
// is no such window: the sequences are too short for their prefill.
Speed speed_of(const std::vector<StepTiming>& steps, int64_t submit_ns, int64_t batch,
               int64_t prompt_tokens);

}  // namespace tandem
