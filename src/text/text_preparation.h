// A text -> the text that a tokenizer over characters cuts into pieces: normalized, with spaces
// marked.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/byte_trie.h"
#include "text/charsmap.h"
#include "base/regex.h"
#include "text/vocabulary.h"

namespace tandem {

class TextPreparation {
 public:
  // Throws bad_file on a character map or a pattern that cannot be used. The vocabulary must
  // outlive this.
  TextPreparation(const TokenizerSpec& spec, const Vocabulary& vocabulary);

  // True when it is plain that normalize() changes nothing of this text.
  bool normalizes_nothing(std::string_view text) const;

  // tokenizer.json's normalizer; added tokens with the flag `normalized` are looked for behind it.
  // is_markup has one byte a byte of text and is kept so; empty: nobody asks. Of text that changes
  // in other ways than by steps prepend and replace, markup and content are normalized apart.
  void normalize(std::string& text, std::string& is_markup) const;

  // What follows the normalizer: the rules of the SentencePiece library, or Metaspace.
  // at_start: nothing stands before this text.
  std::string prepare(std::string text, bool at_start) const;

  // Calls word(text) for each part of a prepared text that is cut into pieces by itself.
  template <typename Word>
  void each_word(std::string_view text, Word&& word) const {
    while (!text.empty()) {
      const size_t bytes = word_bytes(text);
      word(text.substr(0, bytes));
      text.remove_prefix(bytes);
    }
  }

 private:
  struct Step {
    NormalizerStep spec;
    std::optional<Regex> pattern;  // replace_regex
  };

  void apply(const Step& step, std::string& text, std::string& is_markup) const;
  std::string changed(const Step& step, std::string_view text) const;
  std::string map_graphemes(std::string_view text) const;
  std::string by_rules(std::string_view text, bool adds_prefix) const;
  // What the rules make of the characters that text begins with, and how many bytes these are.
  Charsmap::Match next_by_rules(std::string_view text) const;
  size_t word_bytes(std::string_view text) const;

  bool normalizes_nfc_;
  std::vector<Step> steps_;
  std::optional<Metaspace> metaspace_;
  std::optional<SentencePieceRules> rules_;
  Charsmap charsmap_;
  ByteTrie symbols_;  // user-defined pieces: the rules leave them as they are
};

}  // namespace tandem
