// Finds the tokens that are cut out of a text before any word is formed.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace tandem {

// Control tokens are recognised where every byte is markup, user-defined tokens everywhere: these
// are text to the model's authors. The longest token at the leftmost place wins.
class SpecialTokens {
 public:
  // A part of the text: a token and the white space that it takes, or what lies between tokens.
  struct Part {
    size_t begin = 0, end = 0;  // bytes of the text
    int32_t id = -1;            // -1: text
  };
  struct Token {
    AddedToken flags;
    std::string spelling;  // as it is looked for
    bool everywhere;       // not in markup only
  };

  // Throws bad_file on a token of more than 256 bytes: it bounds the search at a position. Of two
  // tokens of the same spelling the first is found.
  explicit SpecialTokens(std::vector<Token> tokens);

  bool empty() const { return tokens_.empty(); }

  // The parts of a text in their order, none empty. is_markup: one byte (0 or 1) a byte of text, or
  // empty when nothing is markup. A part of white space can be text of one part and taken by
  // another where tokens overlap with it, as in the reference implementation.
  std::vector<Part> split(std::string_view text, std::string_view is_markup) const;

 private:
  struct Match {
    size_t begin = 0, end = 0;
    const Token* token = nullptr;
  };
  Match find(std::string_view text, std::string_view is_markup, size_t from) const;
  Match longest_at(std::string_view text, std::string_view is_markup, size_t at) const;

  std::vector<Token> tokens_;            // by spelling
  std::array<bool, 256> starts_any_{};   // by first byte: some token begins so
  std::array<bool, 256> starts_text_{};  // by first byte: some token that is text begins so
};

}  // namespace tandem
