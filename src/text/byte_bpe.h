// A word's bytes -> token ids, by merging the neighbours that come first in the table of merges.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/merge_table.h"
#include "text/vocabulary.h"

namespace tandem {

// Fills a table from the list of merges of a specification. Throws bad_file when there are no
// merges or more than 4 Mi, or when a merge is repeated or its parts or its result are not in the
// vocabulary.
MergeTable read_merge_table(const TokenizerSpec& spec, const Vocabulary& vocabulary);

class ByteBpe {
 public:
  // Throws as read_merge_table. The vocabulary must outlive this.
  ByteBpe(const TokenizerSpec& spec, const Vocabulary& vocabulary);

  // Appends the ids of one word. With ignores_merges a word that is a normal token is that token.
  // Bytes that have no token are left out, as the reference implementation does.
  void encode_word(std::string_view word, std::vector<int32_t>& ids) const;

 private:
  void index_words();
  // The normal token of these bytes, or -1.
  int32_t find_word(std::string_view word) const;

  const Vocabulary& vocabulary_;
  MergeTable merges_;
  std::vector<int32_t> words_;  // ids by their bytes, open addressing, -1: free; empty: unused
};

}  // namespace tandem
