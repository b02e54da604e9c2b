// The source of a template -> tokens, with white space around tags already trimmed as Hugging Face
// sets Jinja up: trim_blocks, lstrip_blocks, and the signs in {%- -%} {%+ +%}.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::jinja {

enum class TokenKind : uint8_t {
  text,  // outside of tags
  print_begin,
  print_end,
  block_begin,
  block_end,
  name,
  string,
  integer,
  real,
  op,  // == != <= >= < > + - * / // % ** ~ ( ) [ ] { } , . : | =
  end,
};

struct Token {
  TokenKind kind;
  std::string text;  // of a string: without quotes, escapes resolved
  int64_t number = 0;
  double real = 0;
  int line = 1;
};

// Throws bad_file with the line: source too large or not UTF-8, an unknown character, operator,
// escape or kind of number, an open tag, bracket, string or comment. The last token is `end`.
std::vector<Token> tokenize(std::string_view source);

}  // namespace tandem::jinja
