#include "text/pre_tokenizer.h"

#include "base/error.h"
#include "base/utf8.h"
#include "text/unicode_class.h"

namespace tandem {
namespace {

struct Char {
  size_t bytes;
  CharClass char_class;
};

Char char_at(std::string_view text, size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {1, char_class(first)};
  const std::string_view rest = text.substr(at);
  const size_t bytes = utf8_valid_length(rest);
  if (bytes == 0) return {1, CharClass::other};
  return {bytes, char_class(utf8_code_point(rest, bytes))};
}

// The end of the run of `wanted` that begins at `at`.
size_t run_end(std::string_view text, size_t at, CharClass wanted) {
  while (at < text.size()) {
    const Char c = char_at(text, at);
    if (c.char_class != wanted) break;
    at += c.bytes;
  }
  return at;
}

// Bytes of 's 't 're 've 'm 'll 'd at the start of text, or 0.
size_t contraction_bytes(std::string_view text) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  switch (text[1]) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    default:
      break;
  }
  const std::string_view two = text.substr(1, 2);
  return two == "re" || two == "ve" || two == "ll" ? 3 : 0;
}

}  // namespace

PreTokenizer::PreTokenizer(const std::string& name) : splits_digits_(name == "smollm") {
  if (name != "smollm" && name != "gpt-2") {
    fail(ErrorKind::bad_file, "tokenizer: pre-tokenizer {} is not known, expected smollm or gpt-2",
         quote(name));
  }
}

size_t PreTokenizer::word_bytes(std::string_view text) const {
  DCHECK(!text.empty(), "no text");
  const Char first = char_at(text, 0);
  if (first.char_class == CharClass::number) {
    return splits_digits_ ? first.bytes : run_end(text, first.bytes, CharClass::number);
  }
  if (const size_t bytes = contraction_bytes(text)) return bytes;
  if (first.char_class != CharClass::space) return run_end(text, first.bytes, first.char_class);

  // A number that is split off ends the text before it, as the end of the whole text does.
  const auto ends_at = [&](size_t at) {
    return at == text.size() ||
           (splits_digits_ && char_at(text, at).char_class == CharClass::number);
  };
  if (text[0] == ' ' && !ends_at(1)) {
    const Char next = char_at(text, 1);
    if (next.char_class != CharClass::space) return run_end(text, 1 + next.bytes, next.char_class);
  }
  // \s+(?!\S) leaves the last space to the word that follows; \s+ takes a lone one.
  size_t last = 0, end = 0;
  while (end < text.size()) {
    const Char c = char_at(text, end);
    if (c.char_class != CharClass::space) break;
    last = end;
    end += c.bytes;
  }
  return ends_at(end) || last == 0 ? end : last;
}

}  // namespace tandem
