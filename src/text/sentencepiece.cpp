#include "text/sentencepiece.h"

#include <algorithm>
#include <cmath>
#include <queue>
#include <string>

#include "base/error.h"
#include "base/utf8.h"

namespace tandem {

SentencePiece::SentencePiece(const TokenizerSpec& spec, const Vocabulary& vocabulary)
    : vocabulary_(vocabulary), scores_(spec.scores), unk_id_(spec.unk_id) {
  if (scores_.size() != spec.tokens.size()) {
    fail(ErrorKind::bad_file, "tokenizer: found {} scores for {} tokens", scores_.size(),
         spec.tokens.size());
  }
  for (size_t id = 0; id < scores_.size(); ++id) {
    if (std::isnan(scores_[id])) {
      fail(ErrorKind::bad_file, "tokenizer: the score of token {} is not a number", id);
    }
  }
  for (int byte = 0; byte < 256 && unk_id_ < 0; ++byte) {
    if (vocabulary.byte_id(static_cast<uint8_t>(byte)) < 0) {
      fail(ErrorKind::bad_file,
           "tokenizer: byte 0x{:02X} has no token, and there is no unknown token", byte);
    }
  }
}

void SentencePiece::append_bytes(std::string_view symbol, std::vector<int32_t>& ids) const {
  for (const char c : symbol) {
    const int32_t id = vocabulary_.byte_id(static_cast<uint8_t>(c));
    ids.push_back(id >= 0 ? id : unk_id_);
  }
}

void SentencePiece::encode(std::string_view text, std::vector<int32_t>& ids) const {
  if (text.empty()) return;
  constexpr std::string_view kSpaceMark = "\xE2\x96\x81";
  std::string marked(kSpaceMark);
  for (const char c : text) c == ' ' ? marked.append(kSpaceMark) : marked.append(1, c);

  struct Symbol {
    size_t begin, bytes;  // bytes 0: merged into its left neighbour
    int64_t previous, next;
  };
  struct Candidate {
    float score;
    int64_t left;
    size_t bytes;  // of the union, when it was proposed
    bool operator<(const Candidate& other) const {
      return score != other.score ? score < other.score : left > other.left;
    }
  };
  std::vector<Symbol> symbols;
  for (size_t at = 0; at < marked.size();) {
    const std::string_view rest = std::string_view(marked).substr(at);
    const size_t bytes = std::max<size_t>(utf8_valid_length(rest), 1);
    const auto i = static_cast<int64_t>(symbols.size());
    symbols.push_back({at, bytes, i - 1, at + bytes < marked.size() ? i + 1 : -1});
    at += bytes;
  }
  const auto symbol = [&](int64_t i) -> Symbol& { return symbols[static_cast<size_t>(i)]; };
  const auto find = [&](size_t begin, size_t bytes) {
    const int32_t id = vocabulary_.find(std::string_view(marked).substr(begin, bytes));
    return id >= 0 && vocabulary_.type(id) == TokenType::normal ? id : -1;
  };

  std::priority_queue<Candidate> queue;
  const auto propose = [&](int64_t left) {
    if (left < 0 || symbol(left).next < 0) return;
    const size_t bytes = symbol(left).bytes + symbol(symbol(left).next).bytes;
    const int32_t id = find(symbol(left).begin, bytes);
    if (id >= 0) queue.push({scores_[static_cast<size_t>(id)], left, bytes});
  };
  for (size_t i = 0; i < symbols.size(); ++i) propose(static_cast<int64_t>(i));
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbol(best.left);
    // Either side may have merged with another neighbour since this was proposed.
    if (left.bytes == 0 || left.next < 0) continue;
    Symbol& right = symbol(left.next);
    if (left.bytes + right.bytes != best.bytes) continue;
    left.bytes = best.bytes;
    left.next = right.next;
    right.bytes = 0;
    if (left.next >= 0) symbol(left.next).previous = best.left;
    propose(left.previous);
    propose(best.left);
  }
  for (int64_t i = 0; i >= 0; i = symbol(i).next) {
    const int32_t id = find(symbol(i).begin, symbol(i).bytes);
    if (id >= 0) {
      ids.push_back(id);
    } else {
      append_bytes(std::string_view(marked).substr(symbol(i).begin, symbol(i).bytes), ids);
    }
  }
}

}  // namespace tandem
