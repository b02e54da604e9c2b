// Where a text is UTF-8 and where it is not.
#pragma once

#include <algorithm>
#include <string_view>

#include "base/utf8.h"

namespace tandem {

// Bytes at the start of text that are valid characters (or, with `valid` false, that begin none).
inline size_t utf8_run(std::string_view text, bool valid) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t bytes = utf8_valid_length(text.substr(at));
    if ((bytes > 0) != valid) break;
    at += std::max<size_t>(bytes, 1);
  }
  return at;
}

}  // namespace tandem
