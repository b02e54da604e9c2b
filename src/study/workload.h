// The study's text -> prompts as rows of token ids, the same for every variant of a model.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace tandem {

// `batch` prompts of prompt_tokens ids each, cut at random places of the text. They depend on the
// seed and the repetition only, so each variant reads the same prompts and no repetition reads one
// twice. Throws usage when the text is too short to cut different rows.
std::vector<std::vector<int32_t>> prompt_rows(std::span<const int32_t> text_tokens, int64_t batch,
                                              int64_t prompt_tokens, uint64_t seed,
                                              int64_t repetition);

// The questions whose answers the report shows side by side.
const std::vector<std::string>& sample_questions();

}  // namespace tandem
