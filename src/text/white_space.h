// White space and characters at the ends of a text of any bytes.
#pragma once

#include <cstdint>
#include <string_view>

namespace tandem {

// The code point that text begins with, U+FFFD when it is not UTF-8 or empty.
uint32_t first_code_point(std::string_view text);
// The last character of a text that is not empty.
std::string_view last_character(std::string_view text);

bool begins_with_space(std::string_view text);
// Where the white space in front of `at` begins, not before `first`, and where that behind it ends.
size_t space_begin(std::string_view text, size_t first, size_t at);
size_t space_end(std::string_view text, size_t at);

}  // namespace tandem
