// Request -> TokenEvents: what a caller hands to the engine and what comes back. Token ids only.
#pragma once

#include <cstdint>
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
};

enum class FinishReason : uint8_t { none, stop_token, max_tokens, context_full, cancelled };
const char* finish_reason_name(FinishReason reason);

// The last event of a request, and only it, has a finish reason.
struct TokenEvent {
  uint64_t request_id = 0;
  int32_t token = -1;  // -1 when the request finished without a further token
  FinishReason finish = FinishReason::none;
};

}  // namespace tandem
