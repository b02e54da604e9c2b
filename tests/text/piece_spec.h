// Specifications of small tokenizers, and what a tokenizer says of one.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "text/tokenizer.h"

namespace tandem {

// <unk> 0, <s> 1, </s> 2, byte tokens from 3 on, then the pieces from 259 on with scores -1, -2,
// ...
inline TokenizerSpec piece_spec(TokenizerKind kind, const std::vector<std::string>& pieces) {
  TokenizerSpec spec;
  spec.kind = kind;
  spec.tokens = {"<unk>", "<s>", "</s>"};
  spec.types = {TokenType::unknown, TokenType::control, TokenType::control};
  for (int b = 0; b < 256; ++b) {
    spec.tokens.push_back(fmt::format("<0x{:02X}>", b));
    spec.types.push_back(TokenType::byte);
  }
  for (const std::string& piece : pieces) {
    spec.tokens.push_back(piece);
    spec.types.push_back(TokenType::normal);
  }
  std::vector<float> scores(spec.tokens.size(), 0.0f);
  for (size_t id = 259; id < scores.size(); ++id) scores[id] = -static_cast<float>(id - 258);
  if (kind == TokenizerKind::sentencepiece) spec.scores = scores;
  if (kind == TokenizerKind::unigram) spec.unigram_scores.assign(scores.begin(), scores.end());
  spec.unk_id = 0;
  spec.bos_id = 1;
  spec.eos_id = 2;
  return spec;
}

// Why a tokenizer refuses it, or "accepted".
inline std::string message_of(const TokenizerSpec& spec) {
  try {
    const Tokenizer tokenizer(spec);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, ErrorKind::bad_file);
    return error.what();
  }
  return "accepted";
}

}  // namespace tandem
