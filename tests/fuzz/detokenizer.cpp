// A stream of tokens -> text, against the same done at once: whole characters only, and cut exactly
// where the first stop string is complete. The input is the stop strings, one a line, then a NUL,
// then a byte for each token.
#include "text/detokenizer.h"

#include "base/error.h"
#include "base/utf8.h"
#include "fuzz/target.h"
#include "text/utf8_replace.h"
#include "text/vocabulary.h"

namespace tandem::fuzz {
namespace {

// Tokens 0..255: most are the byte itself, some are longer, one is a control token.
TokenizerSpec byte_level() {
  TokenizerSpec spec;
  spec.pre_tokenizer = "smollm";
  for (const uint16_t stand_in : byte_stand_ins()) {
    spec.tokens.emplace_back();
    utf8_append(spec.tokens.back(), stand_in);
  }
  spec.types.assign(256, TokenType::normal);
  const char* longer[] = {"stop", "END",  "En",          "dE",
                          "ab",   "abab", "\u00E2\u0124"};  // the last: E2 82
  for (size_t i = 0; i < std::size(longer); ++i) spec.tokens[i + 1] = longer[i];
  spec.tokens[0] = "<|end|>";
  spec.types[0] = TokenType::control;
  for (const int b : {1, 2}) {  // the merges need their pieces
    spec.tokens.emplace_back();
    utf8_append(spec.tokens.back(), byte_stand_ins()[static_cast<size_t>(b)]);
    spec.types.push_back(TokenType::normal);
  }
  spec.merges = {{"a", "b"}};
  return spec;
}

TokenizerSpec pieces() {
  TokenizerSpec spec;
  spec.kind = TokenizerKind::sentencepiece;
  for (int b = 0; b < 256; ++b) {
    spec.tokens.push_back(fmt::format("<0x{:02X}>", b));
    spec.types.push_back(TokenType::byte);
  }
  spec.tokens[0] = "<unk>", spec.types[0] = TokenType::unknown;
  spec.tokens[1] = "\u2581", spec.types[1] = TokenType::normal;
  spec.tokens[2] = "\u2581ab", spec.types[2] = TokenType::normal;
  spec.tokens[3] = "</s>", spec.types[3] = TokenType::control;
  spec.scores.assign(256, 0.0f);
  spec.strips_leading_space = true;
  spec.unk_id = 0;
  return spec;
}

// The text before the stop string that is complete first, the longest of those that end together.
std::string cut(const std::string& text, const std::vector<std::string>& stops) {
  size_t best_end = text.size() + 1, best_begin = text.size();
  for (const std::string& stop : stops) {
    const size_t begin = text.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (end < best_end || (end == best_end && begin < best_begin))
      best_end = end, best_begin = begin;
  }
  return text.substr(0, best_begin);
}

void run_with(const Tokenizer& tokenizer, const std::vector<std::string>& stops,
              std::string_view tokens) {
  Detokenizer stream(tokenizer, stops);
  std::string text;
  std::vector<int32_t> ids;
  for (const char c : tokens) {
    ids.push_back(static_cast<uint8_t>(c));
    const std::string piece = stream.push(ids.back());
    require(utf8_valid(piece), "a piece is whole characters");
    text += piece;
  }
  text += stream.finish();
  std::string whole;
  append_replacing(tokenizer.decode(ids), true, whole);
  require(text == cut(whole, stops),
          "the stream gives what the whole gives, cut at the stop string");
}

void run(std::string_view input) {
  static const Tokenizer kByteLevel(byte_level()), kPieces(pieces());
  const size_t border = std::min(input.find('\0'), input.size());
  std::vector<std::string> stops;
  for (size_t at = 0; at < border;) {
    const size_t end = std::min(input.find('\n', at), border);
    stops.emplace_back(input.substr(at, end - at));
    at = end + 1;
  }
  const std::string_view tokens = input.substr(std::min(border + 1, input.size()));
  for (const Tokenizer* tokenizer : {&kByteLevel, &kPieces}) {
    expect_error_or_success([&] { run_with(*tokenizer, stops, tokens); });
  }
}

std::string mutate(const std::string& input, Random& random, const ByteMutator& bytes) {
  static const std::vector<std::string> kParts = {"stop",
                                                  "END",
                                                  "a",
                                                  "ab",
                                                  "aab",
                                                  "\n",
                                                  "\xE2\x82\xAC",
                                                  "\xE2\x82",
                                                  "\xF0\x9F",
                                                  "\x98\x80",
                                                  " ",
                                                  "\uFFFD",
                                                  std::string(1, '\0')};
  std::string out = input;
  if (random.below(4) == 0) {
    bytes(out);
  } else {
    out.insert(random.below(out.size() + 1), pick(kParts, random));
  }
  return out;
}

std::vector<std::string> seeds() {
  return {std::string("END\0the END", 11),
          std::string("stop\nabab\0ab\5\6stop", 17),
          std::string("\0\xE2\x82\xAC\xF0\x9F\x98\x80", 8),
          std::string("\xE2\x82\xAC\na\0 a\xE2\x82\xAC", 12),
          std::string("\uFFFD\0\xE2\x82q", 7),
          "a\nb\nc\nd\ne"};
}

}  // namespace

const Target& detokenizer_target() {
  static const Target target{"detokenizer", run, seeds, mutate};
  return target;
}

}  // namespace tandem::fuzz
