// Text -> the words that a byte-level BPE merges apart from each other.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tandem {

// The published patterns, matched by hand in one pass. "gpt-2" is
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// and "smollm" the same after it has made every number character a word of its own. "llama-bpe" is
//   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*
//   |\s*[\r\n]+|\s+(?!\S)|\s+
// and "qwen2" that with \p{N} for \p{N}{1,3}. A byte that begins no valid UTF-8 character counts as
// a character of class other.
class PreTokenizer {
 public:
  // Throws bad_file on any other name.
  explicit PreTokenizer(const std::string& name);

  // Bytes of the first word of text, at least 1. text must not be empty.
  size_t word_bytes(std::string_view text) const;

 private:
  size_t gpt2_word_bytes(std::string_view text) const;
  size_t llama3_word_bytes(std::string_view text) const;

  bool like_llama3_ = false;
  bool splits_digits_ = false;  // like gpt-2 only
  int max_digits_ = 0;          // like llama-3 only
};

}  // namespace tandem
