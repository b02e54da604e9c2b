// Finds the tokens that are cut out of a text before any word is formed.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace tandem {

// Control tokens are recognised where every byte is markup, user-defined tokens everywhere: these
// are text to the model's authors. The longest token at the leftmost place wins.
class SpecialTokens {
 public:
  struct Match {
    size_t begin = 0, end = 0;  // bytes of the text
    int32_t id = -1;            // -1: no match
  };

  // Throws bad_file on a special token of more than 256 bytes: it bounds the search at a position.
  // The vocabulary must outlive this.
  explicit SpecialTokens(const Vocabulary& vocabulary);

  // The first match that begins at or after `from`. is_markup: one byte (0 or 1) a byte of text, or
  // empty when nothing is markup.
  Match find(std::string_view text, std::string_view is_markup, size_t from) const;

 private:
  Match longest_at(std::string_view text, std::string_view is_markup, size_t at) const;

  const Vocabulary& vocabulary_;
  std::vector<int32_t> sorted_;          // by spelling
  std::array<bool, 256> starts_any_{};   // by first byte: some token begins so
  std::array<bool, 256> starts_text_{};  // by first byte: some user-defined token begins so
};

}  // namespace tandem
