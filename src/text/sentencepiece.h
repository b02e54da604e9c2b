// Text -> token ids as SentencePiece's BPE does it: neighbours merge by the score of what they
// become.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace tandem {

class SentencePiece {
 public:
  // Throws bad_file when there is not one score a token or one is not a number, or when a byte has
  // no token and there is no unknown token. The vocabulary must outlive this.
  SentencePiece(const TokenizerSpec& spec, const Vocabulary& vocabulary);

  // Appends the ids of a text, to which one space is put in front; nothing for an empty text. Of
  // all neighbours the pair whose union scores highest merges first, the leftmost of equals. A
  // character that is no token becomes its bytes.
  void encode(std::string_view text, std::vector<int32_t>& ids) const;

 private:
  void append_bytes(std::string_view symbol, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary_;
  std::vector<float> scores_;
  int32_t unk_id_;
};

}  // namespace tandem
