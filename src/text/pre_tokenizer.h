// Text -> the words that a byte-level BPE merges apart from each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/regex.h"
#include "text/utf8_runs.h"

namespace tandem {

// The published patterns, the first four matched by hand in one pass:
//   gpt-2      's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   smollm     the same after every number character has become a word of its own
//   llama-bpe  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}
//              | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//   qwen2      that with \p{N} for \p{N}{1,3}
// Others are lists of patterns run by PCRE2: each cuts every part that the ones before it have left
// into its matches and what lies between them. A byte that begins no valid UTF-8 character counts
// as a character of class other to the first four and matches nothing of the others.
class PreTokenizer {
 public:
  // By GGUF's name of a known one, or by the patterns when there are any. Throws bad_file on any
  // other name and on a pattern that cannot be used.
  PreTokenizer(const std::string& name, const std::vector<std::string>& patterns);

  // Calls word(text) for every word of text, in order. Throws as Regex::find.
  template <typename Word>
  void each_word(std::string_view text, Word&& word) const {
    if (!patterns_.empty()) return each_match(text, word);
    while (!text.empty()) {
      const size_t bytes = word_bytes(text);
      word(text.substr(0, bytes));
      text.remove_prefix(bytes);
    }
  }

 private:
  enum class Hand : uint8_t { gpt2, llama3 };

  // Bytes of the first word of text, at least 1. text must not be empty.
  size_t word_bytes(std::string_view text) const {
    return hand_ == Hand::gpt2 ? gpt2_word_bytes(text) : llama3_word_bytes(text);
  }
  size_t gpt2_word_bytes(std::string_view text) const;
  size_t llama3_word_bytes(std::string_view text) const;

  // Runs of valid UTF-8 by the patterns, the bytes between them as they are.
  template <typename Word>
  void each_match(std::string_view text, Word& word) const {
    Regex::Scratch scratch;
    while (!text.empty()) {
      const size_t valid = utf8_run(text, true);
      each_part(text.substr(0, valid), 0, scratch, word);
      text.remove_prefix(valid);
      const size_t invalid = utf8_run(text, false);
      if (invalid > 0) word(text.substr(0, invalid));
      text.remove_prefix(invalid);
    }
  }

  template <typename Word>
  void each_part(std::string_view text, size_t level, Regex::Scratch& scratch, Word& word) const {
    if (text.empty()) return;
    if (level == patterns_.size()) return word(text);
    size_t done = 0;
    while (const auto match = patterns_[level].find(text, done, scratch)) {
      each_part(text.substr(done, match->begin - done), level + 1, scratch, word);
      each_part(text.substr(match->begin, match->end - match->begin), level + 1, scratch, word);
      done = match->end;
    }
    each_part(text.substr(done), level + 1, scratch, word);
  }

  std::vector<Regex> patterns_;
  Hand hand_ = Hand::gpt2;
  bool splits_digits_ = false;  // gpt2 only
  int max_digits_ = 0;          // llama3 only
};

}  // namespace tandem
