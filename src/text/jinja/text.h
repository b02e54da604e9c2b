// Characters of a template's strings: a byte that is not part of valid UTF-8 counts as one.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace tandem::jinja {

// Bytes of the character at the start or the end of text, which must not be empty.
size_t first_char_bytes(std::string_view text);
size_t last_char_bytes(std::string_view text);
int64_t count_chars(std::string_view text);
// Where each character begins, and the size of text at the end.
std::vector<size_t> char_starts(std::string_view text);
// Bytes of white space, in Python's sense, at the start and the end of text.
size_t leading_space_bytes(std::string_view text);
size_t trailing_space_bytes(std::string_view text);
// Byte where `wanted` is first found in text[begin, end); npos: nowhere. Linear, which
// std::string::find is not.
size_t find_bytes(std::string_view text, std::string_view wanted, size_t begin, size_t end);
// Characters that Python's splitlines ends a line at; "\r\n" is one end. `one` is one character.
bool is_line_end(std::string_view one);

enum class LetterCase : uint8_t { lower, upper, title, folded };

// Every letter in that case as Python maps it, with one letter becoming several where Unicode says
// so; each byte has the origin of the letter that it comes from. A Sigma at the end of a word
// becomes its final form in lower case.
TaggedText with_case(Work& work, const TaggedText& text, LetterCase letter_case);
// The first character in title case and the others in lower case.
TaggedText capitalized(Work& work, const TaggedText& text);
// The same for every word, that is, for every run of letters.
TaggedText title_words(Work& work, const TaggedText& text);

}  // namespace tandem::jinja
