// SentencePiece's precompiled character map: how a text's characters are normalized.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

class Charsmap {
 public:
  Charsmap() = default;  // changes nothing
  // The bytes as the file holds them: a length, a double array of 32-bit units, and the
  // replacements, each ended by a zero byte. Throws bad_file when they do not fit together.
  explicit Charsmap(std::string_view bytes);

  bool empty() const { return units_.empty(); }
  // Bytes of the longest replacement.
  size_t longest_replacement() const { return longest_replacement_; }

  struct Match {
    size_t bytes = 0;  // of the text; 0: no rule
    std::string_view replacement;
  };
  // The longest and the shortest rule, of at most 256 bytes, that text begins with.
  Match longest(std::string_view text) const { return find(text, false); }
  Match shortest(std::string_view text) const { return find(text, true); }

 private:
  Match find(std::string_view text, bool shortest) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
  size_t longest_replacement_ = 0;
};

}  // namespace tandem
