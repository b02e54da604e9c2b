// A tokenizer's tables as the model file holds them; text/ turns them into a Tokenizer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace tandem {

enum class TokenizerKind : uint8_t {
  byte_bpe,       // GPT-2's byte-level BPE: tokens spelled in the 256 printable stand-ins
  sentencepiece,  // Llama-2's SentencePiece BPE: characters merge by the scores of what they become
  piece_bpe,      // the same told as a list of merges, as tokenizer.json does
  unigram,        // SentencePiece's Unigram: the pieces whose scores add up to most
};

enum class TokenType : uint8_t { normal, unknown, control, user_defined, unused, byte };

// One step of tokenizer.json's normalizer.
struct NormalizerStep {
  enum class Kind : uint8_t {
    nfc,
    prepend,        // `to` in front of a text that is not empty
    replace,        // every `from` by `to`
    replace_regex,  // every match of the pattern `from` by `to`
    strip_left,     // white space at that end
    strip_right,
    charsmap,  // a precompiled character map, looked up by grapheme as `tokenizers` does
  };
  Kind kind;
  std::string from = {}, to = {};
};

// tokenizer.json's Metaspace: spaces become U+2581, which is put in front of a text that does not
// begin with one.
struct Metaspace {
  enum class Prepend : uint8_t { never, first, always };  // first: only where the text begins
  Prepend prepend = Prepend::always;
  bool splits = true;             // each U+2581 begins a word of its own
  bool after_whitespace = false;  // words between white space first: WhitespaceSplit
};

// How the SentencePiece library itself prepares a text.
struct SentencePieceRules {
  bool adds_dummy_prefix = true;
  bool prefix_first_only = false;  // only where the text begins, not behind special tokens
  bool removes_extra_spaces = true;
  bool escapes_spaces = true;        // spaces become U+2581
  bool space_is_suffix = false;      // the dummy goes behind the text
  bool falls_back_to_bytes = false;  // else an unknown character is the unknown token
  // User-defined pieces: met in the prepared text and never merged.
  std::vector<int32_t> symbols = {};
};

// How a token that is cut out of the text treats what lies around it; as in tokenizer.json.
struct AddedToken {
  int32_t id = -1;
  bool strips_left = false, strips_right = false;  // takes the white space at that side
  bool single_word = false;                        // not inside a word
  bool normalized = false;                         // looked for in the normalized text
};

struct TokenizerSpec {
  TokenizerKind kind = TokenizerKind::byte_bpe;
  // byte_bpe: GGUF's name of a known one ("smollm", "gpt-2", "llama-bpe", "qwen2", ...; see
  // text/pre_tokenizer.h), or empty: split_patterns tell it.
  std::string pre_tokenizer;
  std::vector<std::string> split_patterns;  // each cuts its matches and what lies between apart
  bool normalizes_nfc = false;              // text is brought to NFC first
  bool ignores_merges = false;              // BPE: a word that is a token is not merged up to it
  std::vector<NormalizerStep> normalizer;   // in order, after normalizes_nfc
  std::optional<Metaspace> metaspace;       // after the normalizer
  std::optional<SentencePieceRules> rules;  // in place of the three above
  std::string charsmap;                     // of `rules` or the charsmap step; empty: identity
  std::vector<std::string> tokens;          // by id, as spelled in the file
  std::vector<TokenType> types;             // by id
  std::vector<float> scores;                // by id; sentencepiece
  std::vector<double> unigram_scores;       // by id; unigram
  std::vector<std::pair<std::string, std::string>> merges;  // byte_bpe, piece_bpe, in rank order
  bool falls_back_to_bytes = false;  // piece_bpe, unigram without rules: else the unknown token
  bool fuses_unknown = false;        // piece_bpe: neighbouring unknown characters are one token
  std::vector<AddedToken> added;     // those of the control and user-defined tokens with a flag set
  int32_t bos_id = -1, eos_id = -1, pad_id = -1, unk_id = -1;  // -1: none
  bool add_bos = false;
  bool strips_leading_space = false;  // decoding drops the space that encoding put in front
  std::string chat_template;          // Jinja; empty: none
};

}  // namespace tandem
