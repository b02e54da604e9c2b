// The tokens of a model: spelling <-> id, and the bytes each stands for.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizer_spec.h"

namespace tandem {

// GPT-2 spells byte b as a printable character: itself where it is printable Latin-1, otherwise one
// of U+0100..U+0143. The code point that stands for each byte:
const std::array<uint16_t, 256>& byte_stand_ins();

class Vocabulary {
 public:
  // Throws bad_file on tables of different lengths, more than 4 Mi tokens, an empty, repeated or
  // ill-formed spelling, and a byte token not spelled <0xHH>. A normal token of a byte-level BPE
  // with a character that stands for no byte counts as unused.
  explicit Vocabulary(const TokenizerSpec& spec);

  int32_t size() const { return static_cast<int32_t>(spellings_.size()); }
  // -1 when there is none.
  int32_t find(std::string_view spelling) const;
  TokenType type(int32_t id) const { return types_[static_cast<size_t>(id)]; }
  std::string_view spelling(int32_t id) const { return spellings_[static_cast<size_t>(id)]; }
  // What the token adds to a text; empty for control and unknown tokens.
  std::string_view bytes(int32_t id) const;
  // The token of one byte: a BPE's initial symbol or SentencePiece's fallback. -1: none.
  int32_t byte_id(uint8_t byte) const { return byte_ids_[byte]; }

 private:
  void build_index();
  void add_bytes(int32_t id, TokenizerKind kind);

  std::vector<std::string> spellings_;
  std::vector<TokenType> types_;
  std::vector<int32_t> index_;       // open addressing, a power of two of slots; -1: free
  std::string arena_;                // the bytes of all tokens, one after the other
  std::vector<size_t> arena_begin_;  // by id, one more than tokens
  std::array<int32_t, 256> byte_ids_;
};

}  // namespace tandem
