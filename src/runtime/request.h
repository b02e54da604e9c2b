// Request -> TokenEvents: what a caller hands to the engine and what comes back. Token ids only.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace tandem {

struct SamplingParams {
  float temperature = 0.0f;         // 0: greedy
  int32_t top_k = 0;                // 0: off
  float top_p = 1.0f;               // 1: off
  float min_p = 0.0f;               // 0: off
  float repetition_penalty = 1.0f;  // 1: off; over the prompt and the answer
  uint64_t seed = 0;
};

// Throws usage naming the parameter, its value and the range it must lie in.
void check_sampling(const SamplingParams& params);

struct Request {
  uint64_t id = 0;
  std::vector<int32_t> prompt;  // at least one token
  int64_t max_tokens = 256;     // new tokens, at least 1
  SamplingParams sampling;
  std::vector<int32_t> stop_tokens;  // end the answer; not emitted
  // A conversation's next turn begins with the tokens of the turn before. A request that ends with
  // `keep` leaves its cache in the engine until another request continues it, or needs the memory.
  // A request that `continues` one takes over the cache of the tokens that both begin with, and
  // computes the rest: the tokens it gives are those of a request that continues nothing. An id
  // whose cache is no longer there, or never was, continues nothing.
  bool keep = false;
  std::optional<uint64_t> continues;
};

enum class FinishReason : uint8_t { none, stop_token, max_tokens, context_full, cancelled };
const char* finish_reason_name(FinishReason reason);

// The last event of a request, and only it, has a finish reason.
struct TokenEvent {
  uint64_t request_id = 0;
  int32_t token = -1;  // -1 when the request finished without a further token
  FinishReason finish = FinishReason::none;
  int64_t num_reused = 0;  // prompt tokens whose cache was taken over; in every event with a token
};

}  // namespace tandem
