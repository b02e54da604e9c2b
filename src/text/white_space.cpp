#include "text/white_space.h"

#include "base/utf8.h"
#include "text/unicode_class.h"

namespace tandem {

uint32_t first_code_point(std::string_view text) {
  const size_t bytes = utf8_valid_length(text);
  return bytes > 0 ? utf8_code_point(text, bytes) : 0xFFFD;
}

std::string_view last_character(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && text.size() - begin < 4 &&
         (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) {
    --begin;
  }
  return text.substr(begin);
}

bool begins_with_space(std::string_view text) {
  return !text.empty() && char_class(first_code_point(text)) == CharClass::space;
}

size_t space_begin(std::string_view text, size_t first, size_t at) {
  while (at > first) {
    const std::string_view last = last_character(text.substr(first, at - first));
    if (!begins_with_space(last)) break;
    at -= last.size();
  }
  return at;
}

size_t space_end(std::string_view text, size_t at) {
  while (begins_with_space(text.substr(at))) at += utf8_valid_length(text.substr(at));
  return at;
}

}  // namespace tandem
