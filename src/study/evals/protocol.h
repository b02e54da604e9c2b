// A text -> the windows of one of the perplexity protocols. Figures of different protocols are
// never comparable, so each carries its letter.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace tandem {

struct PerplexityProtocol {
  char letter;
  const char* name;
  int64_t window;        // tokens
  int64_t stride;        // window: they do not overlap
  int64_t first_scored;  // position from which a window is scored
  bool bos_each_window;  // the BOS that opens the text replaces each window's first token, too
};

// A GPTQ, B llama.cpp, C strided, E short windows. Throws usage for any other letter; D reads
// documents (evals/documents.h).
const PerplexityProtocol& protocol_of(const std::string& letter);

// Tokens of one window; the logits of positions [first, size - 1) are scored.
struct ScoredSpan {
  std::vector<int32_t> tokens;
  int64_t first = 0;
};

// At most max_windows of them (0: all the text has). bos_id: -1 for models that want none. Throws
// usage when the text has no whole window.
std::vector<ScoredSpan> protocol_windows(const PerplexityProtocol& protocol,
                                         std::span<const int32_t> text_tokens, int32_t bos_id,
                                         int64_t max_windows);

}  // namespace tandem
