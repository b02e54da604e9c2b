// A tokenizer's tables as the model file holds them; text/ turns them into a Tokenizer.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace tandem {

enum class TokenizerKind : uint8_t {
  byte_bpe,       // GPT-2's byte-level BPE: tokens spelled in the 256 printable stand-ins
  sentencepiece,  // Llama-2's SentencePiece BPE with scores and byte fallback
};

enum class TokenType : uint8_t { normal, unknown, control, user_defined, unused, byte };

struct TokenizerSpec {
  TokenizerKind kind = TokenizerKind::byte_bpe;
  std::string pre_tokenizer;        // GGUF's name: "smollm", "gpt-2", "llama-bpe", "qwen2"
  bool normalizes_nfc = false;      // byte_bpe: text is brought to NFC first
  bool ignores_merges = false;      // byte_bpe: a word that is a token is not merged up to it
  std::vector<std::string> tokens;  // by id, as spelled in the file
  std::vector<TokenType> types;     // by id
  std::vector<float> scores;        // by id; sentencepiece only
  std::vector<std::pair<std::string, std::string>> merges;     // byte_bpe, in rank order
  int32_t bos_id = -1, eos_id = -1, pad_id = -1, unk_id = -1;  // -1: none
  bool add_bos = false;
  std::string chat_template;  // Jinja; empty: none
};

}  // namespace tandem
