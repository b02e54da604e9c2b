// Text -> the Unicode normalization form that a tokenizer was trained on.
#pragma once

#include <string>
#include <string_view>

namespace tandem {

// True when NFC changes nothing, as can be seen from the bytes alone: no character of U+0300 or
// above.
bool is_surely_nfc(std::string_view text);

// Canonical composition, in time nearly linear also in long runs of marks. Bytes that are not UTF-8
// stay as they are and separate what lies around them.
std::string to_nfc(std::string_view text);

}  // namespace tandem
