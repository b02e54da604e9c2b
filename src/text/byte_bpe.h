// A word's bytes -> token ids, by merging the neighbours that come first in the table of merges.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace tandem {

class ByteBpe {
 public:
  // Throws bad_file when there are no merges or more than 4 Mi, or when a merge is repeated or its
  // parts or its result are not in the vocabulary. The vocabulary must outlive this.
  ByteBpe(const TokenizerSpec& spec, const Vocabulary& vocabulary);

  // Appends the ids of one word. With ignores_merges a word that is a normal token is that token.
  // Of all neighbours the pair of lowest rank merges first, the
  // leftmost of equals. Bytes that have no token are left out, as the reference implementation
  // does.
  void encode_word(std::string_view word, std::vector<int32_t>& ids) const;

 private:
  static constexpr uint32_t kNoRank = UINT32_MAX;

  struct Merge {
    uint64_t pair;  // left id << 32 | right id
    uint32_t rank = kNoRank;
    int32_t merged;
  };

  static uint64_t pair_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }
  // Where the merge of a pair is, or the free slot (kNoRank) where it would be.
  size_t slot_of(uint64_t pair) const;
  const Merge& find(uint64_t pair) const { return table_[slot_of(pair)]; }
  void index_words();
  // The normal token of these bytes, or -1.
  int32_t find_word(std::string_view word) const;
  void merge_short(int32_t* symbols, size_t count, std::vector<int32_t>& ids) const;
  void merge_long(const std::vector<int32_t>& symbols, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary_;
  std::vector<Merge> table_;  // open addressing, a power of two of slots, at most half full
  int shift_ = 0;
  std::vector<int32_t> words_;  // ids by their bytes, open addressing, -1: free; empty: unused
};

}  // namespace tandem
