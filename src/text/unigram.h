// Text -> token ids as SentencePiece's Unigram does it: of all ways to cut the text into pieces the
// one whose scores add up to most.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/byte_trie.h"
#include "text/vocabulary.h"

namespace tandem {

class Unigram {
 public:
  // Throws bad_file when there is not one score a token, when one is not finite, or when a
  // character could neither fall back to bytes nor to an unknown token. The vocabulary must outlive
  // this.
  Unigram(const TokenizerSpec& spec, const Vocabulary& vocabulary);

  // Appends the ids of a prepared text. A character that is no piece costs 10 more than the worst
  // piece; what was cut out so becomes bytes, or one unknown token for each run.
  void encode(std::string_view text, std::vector<int32_t>& ids) const;

 private:
  struct Step;  // the best way to a place in the text
  void append_unknown(std::string_view run, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary_;
  ByteTrie pieces_;
  std::vector<double> scores_;
  std::vector<bool> is_symbol_;  // by id: a user-defined piece, which always wins; empty: none is
  double unknown_score_ = 0;
  float best_score_ = 0;
  int32_t unk_id_;
  bool single_precision_;  // the SentencePiece library sums in float, `tokenizers` in double
  bool falls_back_to_bytes_;
};

}  // namespace tandem
