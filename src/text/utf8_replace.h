// Any bytes -> valid UTF-8, in pieces.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tandem {

// Appends the characters of bytes to out, U+FFFD for each part that can never become one (the
// longest beginning of a character, else one byte: what Python's errors="replace" does). Returns
// the bytes used up: all of them when `final`, otherwise all but a character that is still
// incomplete.
size_t append_replacing(std::string_view bytes, bool final, std::string& out);

}  // namespace tandem
