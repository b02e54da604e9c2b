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

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

// Bytes of 's 't 're 've 'm 'll 'd at the start of text, or 0.
size_t contraction_bytes(std::string_view text, bool any_case) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  const auto letter = [&](size_t i) {
    return i >= text.size() ? '\0' : any_case ? lower(text[i]) : text[i];
  };
  switch (letter(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return letter(2) == 'e' ? 3 : 0;
    case 'l':
      return letter(2) == 'l' ? 3 : 0;
    default:
      break;
  }
  // The long s U+017F is an s to a pattern that ignores case.
  return any_case && text.substr(1).starts_with("\xC5\xBF") ? 3 : 0;
}

bool is_newline(char c) { return c == '\n' || c == '\r'; }

// A run of white space at the start of text.
struct SpaceRun {
  size_t end = 0;
  size_t last = 0;         // where its last character begins
  size_t newline_end = 0;  // behind its last \n or \r; 0: none
};

SpaceRun space_run(std::string_view text) {
  SpaceRun run;
  while (run.end < text.size()) {
    const Char c = char_at(text, run.end);
    if (c.char_class != CharClass::space) break;
    run.last = run.end;
    run.end += c.bytes;
    if (is_newline(text[run.last])) run.newline_end = run.end;
  }
  return run;
}

}  // namespace

PreTokenizer::PreTokenizer(const std::string& name)
    : like_llama3_(name == "llama-bpe" || name == "qwen2"),
      splits_digits_(name == "smollm"),
      max_digits_(name == "llama-bpe" ? 3 : 1) {
  if (!like_llama3_ && !splits_digits_ && name != "gpt-2") {
    fail(ErrorKind::bad_file,
         "tokenizer: pre-tokenizer {} is not known, expected gpt-2, smollm, llama-bpe or qwen2",
         quote(name));
  }
}

size_t PreTokenizer::word_bytes(std::string_view text) const {
  DCHECK(!text.empty(), "no text");
  return like_llama3_ ? llama3_word_bytes(text) : gpt2_word_bytes(text);
}

size_t PreTokenizer::gpt2_word_bytes(std::string_view text) const {
  const Char first = char_at(text, 0);
  if (first.char_class == CharClass::number) {
    return splits_digits_ ? first.bytes : run_end(text, first.bytes, CharClass::number);
  }
  if (const size_t bytes = contraction_bytes(text, false)) return bytes;
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
  const SpaceRun spaces = space_run(text);
  return ends_at(spaces.end) || spaces.last == 0 ? spaces.end : spaces.last;
}

size_t PreTokenizer::llama3_word_bytes(std::string_view text) const {
  if (const size_t bytes = contraction_bytes(text, true)) return bytes;
  const Char first = char_at(text, 0);
  if (first.char_class == CharClass::letter) {
    return run_end(text, first.bytes, CharClass::letter);
  }
  if (first.char_class == CharClass::number) {
    size_t end = first.bytes;
    for (int digits = 1; digits < max_digits_ && end < text.size(); ++digits) {
      const Char next = char_at(text, end);
      if (next.char_class != CharClass::number) break;
      end += next.bytes;
    }
    return end;
  }
  if (!is_newline(text[0])) {
    const size_t letters_end = run_end(text, first.bytes, CharClass::letter);
    if (letters_end > first.bytes) return letters_end;
  }
  const size_t begin = text[0] == ' ' ? 1 : 0;
  size_t end = run_end(text, begin, CharClass::other);
  if (end > begin) {
    while (end < text.size() && is_newline(text[end])) ++end;
    return end;
  }
  const SpaceRun spaces = space_run(text);
  if (spaces.newline_end > 0) return spaces.newline_end;
  return spaces.end == text.size() || spaces.last == 0 ? spaces.end : spaces.last;
}

}  // namespace tandem
