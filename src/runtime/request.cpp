#include "runtime/request.h"

#include "base/error.h"

namespace tandem {
namespace {

// The comparison is false for NaN, so NaN is refused too.
void check_range(const char* name, double value, double low, double high) {
  if (!(value >= low && value <= high)) {
    fail(ErrorKind::usage, "{} is {}; expected {} to {}", name, value, low, high);
  }
}

}  // namespace

void check_sampling(const SamplingParams& params) {
  check_range("temperature", params.temperature, 0.0, 100.0);
  if (params.top_k < 0)
    fail(ErrorKind::usage, "top-k is {}; expected 0 (off) or more", params.top_k);
  if (!(params.top_p > 0.0f && params.top_p <= 1.0f)) {
    fail(ErrorKind::usage, "top-p is {}; expected more than 0, at most 1 (off)", params.top_p);
  }
  check_range("min-p", params.min_p, 0.0, 1.0);
  check_range("repetition penalty", params.repetition_penalty, 0.01, 100.0);
}

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::none:
      return "none";
    case FinishReason::stop_token:
      return "stop_token";
    case FinishReason::max_tokens:
      return "max_tokens";
    case FinishReason::context_full:
      return "context_full";
    case FinishReason::cancelled:
      return "cancelled";
  }
  return "none";
}

}  // namespace tandem
