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

  struct Match {
    size_t bytes = 0;  // of the text; 0: no rule
    std::string_view replacement;
  };
  // The longest and the shortest rule that text begins with.
  Match longest(std::string_view text) const { return find(text, false); }
  Match shortest(std::string_view text) const { return find(text, true); }

 private:
  Match find(std::string_view text, bool shortest) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace tandem
