#include "study/evals/protocol.h"

#include <algorithm>

#include "base/error.h"

namespace tandem {
namespace {

constexpr PerplexityProtocol kProtocols[] = {
    {'A', "2048 tokens, no overlap, all scored (GPTQ)", 2048, 2048, 0, false},
    {'B', "512 tokens, no overlap, second half scored (llama.cpp)", 512, 512, 256, true},
    {'C', "2048 tokens, stride 512, new tokens scored (Hugging Face)", 2048, 512, 0, false},
    {'E', "512 tokens, no overlap, all scored", 512, 512, 0, false},
};

}  // namespace

const PerplexityProtocol& protocol_of(const std::string& letter) {
  for (const PerplexityProtocol& protocol : kProtocols) {
    if (letter == std::string(1, protocol.letter)) return protocol;
  }
  fail(ErrorKind::usage, "--ppl: found {}, expected A, B, C, D or E", quote(letter));
}

std::vector<ScoredSpan> protocol_windows(const PerplexityProtocol& protocol,
                                         std::span<const int32_t> text_tokens, int32_t bos_id,
                                         int64_t max_windows) {
  std::vector<int32_t> text(text_tokens.begin(), text_tokens.end());
  if (bos_id >= 0) text.insert(text.begin(), bos_id);
  const auto size = static_cast<int64_t>(text.size());
  if (size < protocol.window) {
    fail(ErrorKind::usage, "text: {} tokens; protocol {} needs {}", size, protocol.letter,
         protocol.window);
  }
  const bool overlaps = protocol.stride < protocol.window;
  std::vector<ScoredSpan> windows;
  int64_t scored_end = 0;  // tokens of the text that are predicted already
  for (int64_t begin = 0; begin < size; begin += protocol.stride) {
    const int64_t end = std::min(begin + protocol.window, size);
    if (end - begin < protocol.window && !overlaps) break;  // the tail is dropped
    if (max_windows > 0 && static_cast<int64_t>(windows.size()) == max_windows) break;
    ScoredSpan window{{text.begin() + begin, text.begin() + end}, protocol.first_scored};
    // What an earlier window predicted is context here; position p predicts token p + 1.
    if (overlaps) window.first = std::max<int64_t>(scored_end - begin - 1, 0);
    if (bos_id >= 0 && protocol.bos_each_window) window.tokens.front() = bos_id;
    windows.push_back(std::move(window));
    scored_end = end;
    if (end == size) break;
  }
  return windows;
}

}  // namespace tandem
