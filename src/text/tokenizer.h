// Text <-> token ids.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizer_spec.h"

namespace tandem {

// A piece of text and where it came from. Special tokens are recognised in markup only, so that
// "<|im_end|>" typed by a user stays text.
struct TextSpan {
  std::string text;
  bool is_markup = false;
};

class Tokenizer {
 public:
  // Throws bad_file when the tables contradict each other (a merge of an unknown piece, ids out of
  // range, add_bos without a BOS) or the pre-tokenizer is not known.
  explicit Tokenizer(const TokenizerSpec& spec);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  // Ids of plain text: no control token is recognised, no BOS is added. Any bytes are accepted,
  // ill-formed UTF-8 byte by byte. Bytes for which a byte-level vocabulary has no token at all are
  // left out, as the reference does (SmolLM2's lacks U+0004 and a few more). SentencePiece models
  // may put a space in front. Throws usage when a pattern out of the file takes too many steps.
  std::vector<int32_t> encode(std::string_view text) const;
  // Ids of text whose markup spans may hold special tokens; consecutive spans are joined before the
  // pre-tokenizer sees them, so a boundary between spans does not split a word.
  std::vector<int32_t> encode(std::span<const TextSpan> spans) const;
  // encode(text) with the BOS in front when the model wants one (add_bos).
  std::vector<int32_t> encode_prompt(std::string_view text) const;

  // The bytes of one token; empty for control tokens.
  std::string_view token_bytes(int32_t id) const;
  // The bytes of all tokens, control tokens left out; without the space that encode() put in front.
  std::string decode(std::span<const int32_t> ids) const;
  // The spelling of a token for people, control tokens included; bytes that are not UTF-8 as
  // <0xHH>.
  std::string token_name(int32_t id) const;

  int32_t vocab_size() const;
  int32_t bos_id() const;  // -1: none
  int32_t eos_id() const;  // -1: none
  // Tokens that end an answer: eos and the template's end-of-turn tokens ("<|im_end|>",
  // "<|eot_id|>").
  const std::vector<int32_t>& stop_ids() const;
  // True when a text begins with a space that encode() added and decode() takes away.
  bool adds_leading_space() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem
