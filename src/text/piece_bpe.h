// Prepared text -> token ids by byte-pair encoding over characters: SentencePiece's BPE and what
// tokenizer.json makes of it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/byte_trie.h"
#include "text/merge_table.h"
#include "text/vocabulary.h"

namespace tandem {

class PieceBpe {
 public:
  // Of kind sentencepiece the pair whose union scores highest merges first, of kind piece_bpe the
  // one listed first; the leftmost of equals. Throws bad_file when scores or merges are missing or
  // contradict the vocabulary, or when a character could become neither bytes nor an unknown token.
  // The vocabulary must outlive this.
  PieceBpe(const TokenizerSpec& spec, const Vocabulary& vocabulary);

  // Appends the ids of a prepared text, as one word. Characters that are no token become their
  // bytes or the unknown token; where neither exists they are left out.
  void encode(std::string_view text, std::vector<int32_t>& ids) const;

 private:
  class Encoder;  // one call of encode()

  void read_scores(const TokenizerSpec& spec);
  void read_merges(const TokenizerSpec& spec);
  void add_splits(int32_t id, uint32_t rank);
  void add_joint(std::string_view left, std::string_view right);
  // The symbol of one character: its token, else a number of its own from the vocabulary's size up
  // where pieces hold it, else -1.
  int32_t character(std::string_view spelling) const;
  int32_t number_character(std::string_view spelling);

  const Vocabulary& vocabulary_;
  MergeTable merges_;
  // Neighbouring characters between which some merge can happen. Everywhere else the text is cut
  // into words, which changes nothing, and a word met again is not merged again.
  MergeTable joints_;
  std::array<int32_t, 128> ascii_;
  std::unordered_map<std::string_view, int32_t> characters_;  // numbered ones; keys in the pieces
  std::vector<std::string_view> numbered_;  // by symbol less the vocabulary's size
  ByteTrie symbols_;                        // user-defined pieces
  int32_t unk_id_;
  bool falls_back_to_bytes_ = true;
  bool bytes_one_by_one_ = false;  // a byte without a token is an unknown token, as in llama.cpp
  bool fuses_unknown_ = false;     // a run of unknown characters is one unknown token
  bool ignores_merges_ = false;
};

}  // namespace tandem
