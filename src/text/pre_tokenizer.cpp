#include "text/pre_tokenizer.h"

#include "base/error.h"
#include "base/utf8.h"
#include "text/unicode_class.h"

namespace tandem {
namespace {

// Those that are matched by hand, under all their names.
struct Known {
  const char* name;
  bool splits_digits;  // as smollm does
  int max_digits;      // of llama-bpe's numbers; 0: like gpt-2
};
constexpr Known kKnown[] = {
    {"gpt-2", false, 0},     {"mpt", false, 0},    {"smollm", true, 0},
    {"starcoder", true, 0},  {"refact", true, 0},  {"command-r", true, 0},
    {"llama-bpe", false, 3}, {"llama3", false, 3}, {"llama-v3", false, 3},
    {"dbrx", false, 3},      {"qwen2", false, 1},  {"deepseek-r1-qwen", false, 1},
};

constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct KnownPatterns {
  const char* name;
  const char* patterns[5];  // null: fewer
};
constexpr KnownPatterns kKnownPatterns[] = {
    {"falcon", {R"([\p{P}$+<=>^~|`]+)", kGpt2Pattern, "[0-9][0-9][0-9]"}},
    {"deepseek-coder",
     {"[\r\n]", R"(\s?\p{L}+)", R"(\s?\p{P}+)",
      R"([\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+)", R"(\p{N})"}},
    {"tekken",
     {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
      R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N})"
      R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
    {"qwen35",
     {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})"
      R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
};

struct Char {
  size_t bytes;
  CharClass char_class;
};

// splits_digits: a digit that is split off is a number, whatever the patterns make of it.
Char char_at(std::string_view text, size_t at, bool splits_digits = false) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {1, char_class(first)};
  const std::string_view rest = text.substr(at);
  const size_t bytes = utf8_valid_length(rest);
  if (bytes == 0) return {1, CharClass::other};
  const uint32_t c = utf8_code_point(rest, bytes);
  if (splits_digits && is_split_digit(c)) return {bytes, CharClass::number};
  return {bytes, char_class(c)};
}

// The end of the run of `wanted` that begins at `at`.
size_t run_end(std::string_view text, size_t at, CharClass wanted, bool splits_digits = false) {
  while (at < text.size()) {
    const Char c = char_at(text, at, splits_digits);
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

PreTokenizer::PreTokenizer(const std::string& name, const std::vector<std::string>& patterns) {
  for (const std::string& pattern : patterns) patterns_.emplace_back(pattern);
  if (!patterns.empty()) return;
  for (const Known& known : kKnown) {
    if (name != known.name) continue;
    hand_ = known.max_digits > 0 ? Hand::llama3 : Hand::gpt2;
    splits_digits_ = known.splits_digits;
    max_digits_ = known.max_digits;
    return;
  }
  for (const KnownPatterns& known : kKnownPatterns) {
    if (name != known.name) continue;
    for (const char* pattern : known.patterns) {
      if (pattern != nullptr) patterns_.emplace_back(pattern);
    }
    return;
  }
  std::string names;
  for (const Known& known : kKnown) names.append(names.empty() ? "" : ", ").append(known.name);
  for (const KnownPatterns& known : kKnownPatterns) names.append(", ").append(known.name);
  fail(ErrorKind::bad_file, "tokenizer: pre-tokenizer {} is not known, expected one of {}",
       quote(name), names);
}

size_t PreTokenizer::gpt2_word_bytes(std::string_view text) const {
  const Char first = char_at(text, 0, splits_digits_);
  if (first.char_class == CharClass::number) {
    return splits_digits_ ? first.bytes : run_end(text, first.bytes, CharClass::number);
  }
  if (const size_t bytes = contraction_bytes(text, false)) return bytes;
  if (first.char_class != CharClass::space) {
    return run_end(text, first.bytes, first.char_class, splits_digits_);
  }

  // A number that is split off ends the text before it, as the end of the whole text does.
  const auto ends_at = [&](size_t at) {
    return at == text.size() ||
           (splits_digits_ && char_at(text, at, splits_digits_).char_class == CharClass::number);
  };
  if (text[0] == ' ' && !ends_at(1)) {
    const Char next = char_at(text, 1, splits_digits_);
    if (next.char_class != CharClass::space) {
      return run_end(text, 1 + next.bytes, next.char_class, splits_digits_);
    }
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
