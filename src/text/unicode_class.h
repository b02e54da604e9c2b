// A code point -> the classes that pre-tokenizers and templates ask about.
#pragma once

#include <cstdint>

namespace tandem {

enum class CharClass : uint8_t {
  other,   // [^\s\p{L}\p{N}], unassigned code points included
  letter,  // \p{L}
  number,  // \p{N}: Nd, Nl, No
  space,   // \s: the White_Space property
};

// Classes by Unicode 16, that of the regular expressions of the reference tokenizers.
CharClass char_class(uint32_t code_point);

// Nd, Nl, No by Unicode 17: what the reference tokenizers' step Digits splits off, which asks Rust's
// char::is_numeric and no regular expression.
bool is_split_digit(uint32_t code_point);

// Python's str.isspace: White_Space and the four information separators U+001C..U+001F.
bool is_python_space(uint32_t code_point);

// \w of Rust's regular expressions: Alphabetic, marks, decimal digits, connectors and joiners.
bool is_word_character(uint32_t code_point);

}  // namespace tandem
