// Text -> the words that a byte-level BPE merges apart from each other.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tandem {

// The GPT-2 pattern
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// matched by hand in one pass. "gpt-2" applies it to the whole text; "smollm" first makes every
// number character a word of its own and applies it to what lies between. A byte that begins no
// valid UTF-8 character counts as a character of class other.
class PreTokenizer {
 public:
  // Throws bad_file on a name other than "smollm" and "gpt-2".
  explicit PreTokenizer(const std::string& name);

  // Bytes of the first word of text, at least 1. text must not be empty.
  size_t word_bytes(std::string_view text) const;

 private:
  bool splits_digits_ = false;
};

}  // namespace tandem
