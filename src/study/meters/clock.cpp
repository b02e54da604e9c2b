#include "study/meters/clock.h"

#include "base/error.h"

namespace tandem {

Speed speed_of(const std::vector<StepTiming>& steps, int64_t submit_ns, int64_t batch,
               int64_t prompt_tokens) {
  size_t started = 0;
  int64_t num_started = 0;
  while (started < steps.size()) {
    num_started += steps[started].num_first_tokens;
    if (num_started == batch) break;
    ++started;
  }
  CHECK(num_started == batch, "{} of {} sequences gave a token", num_started, batch);
  size_t ended = 0;
  while (ended < steps.size() && steps[ended].num_finished == 0) ++ended;
  if (ended >= steps.size() || ended <= started) {
    fail(ErrorKind::usage,
         "study: a sequence ended before all {} decoded together; more new tokens are needed",
         batch);
  }
  Speed speed;
  speed.first_token_seconds = static_cast<double>(steps[started].end_ns - submit_ns) * 1e-9;
  speed.prefill_tokens_per_second =
      static_cast<double>(batch * prompt_tokens) / speed.first_token_seconds;
  for (size_t i = started + 1; i <= ended; ++i) speed.decode_tokens += steps[i].num_tokens;
  speed.decode_seconds = static_cast<double>(steps[ended].end_ns - steps[started].end_ns) * 1e-9;
  speed.decode_tokens_per_second = static_cast<double>(speed.decode_tokens) / speed.decode_seconds;
  return speed;
}

}  // namespace tandem
