#include "study/workload.h"

#include <set>

#include "base/error.h"
#include "base/random.h"

namespace tandem {

std::vector<std::vector<int32_t>> prompt_rows(std::span<const int32_t> text_tokens, int64_t batch,
                                              int64_t prompt_tokens, uint64_t seed,
                                              int64_t repetition) {
  const int64_t available = static_cast<int64_t>(text_tokens.size());
  const int64_t num_places = available - prompt_tokens + 1;
  if (num_places < 2 * batch) {
    fail(ErrorKind::usage,
         "study text: has {} tokens, {} different prompts of {} tokens need at least {}; "
         "give a longer --text",
         available, batch, prompt_tokens, prompt_tokens + 2 * batch - 1);
  }
  Random random(Random(seed).next() + static_cast<uint64_t>(repetition));
  std::set<int64_t> places;
  std::vector<std::vector<int32_t>> rows;
  while (static_cast<int64_t>(rows.size()) < batch) {
    const auto place = static_cast<int64_t>(random.below(static_cast<uint64_t>(num_places)));
    if (!places.insert(place).second) continue;
    const auto cut =
        text_tokens.subspan(static_cast<size_t>(place), static_cast<size_t>(prompt_tokens));
    rows.emplace_back(cut.begin(), cut.end());
  }
  return rows;
}

const std::vector<std::string>& sample_questions() {
  static const std::vector<std::string> questions = {
      "What is the capital of France, and what is it known for?",
      "Explain in two sentences why the sky is blue.",
      "Write a short poem about the sea.",
      "A train travels 60 km in 45 minutes. What is its speed in km/h?",
  };
  return questions;
}

}  // namespace tandem
