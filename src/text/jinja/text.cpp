#include "text/jinja/text.h"

#include <algorithm>
#include <cstring>

#include "base/utf8.h"
#include "text/unicode_class.h"

namespace tandem::jinja {
namespace {

bool is_space_char(std::string_view one) {
  const size_t length = utf8_valid_length(one);
  return length == one.size() && is_python_space(utf8_code_point(one, length));
}

}  // namespace

size_t first_char_bytes(std::string_view text) {
  return std::max<size_t>(utf8_valid_length(text), 1);
}

size_t last_char_bytes(std::string_view text) {
  for (size_t length = 2; length <= 4 && length <= text.size(); ++length) {
    if (utf8_valid_length(text.substr(text.size() - length)) == length) return length;
  }
  return 1;
}

int64_t count_chars(std::string_view text) {
  int64_t count = 0;
  for (; !text.empty(); ++count) text.remove_prefix(first_char_bytes(text));
  return count;
}

std::vector<size_t> char_starts(std::string_view text) {
  std::vector<size_t> starts;
  starts.reserve(text.size() + 1);
  for (size_t at = 0; at < text.size(); at += first_char_bytes(text.substr(at))) {
    starts.push_back(at);
  }
  starts.push_back(text.size());
  return starts;
}

size_t leading_space_bytes(std::string_view text) {
  size_t bytes = 0;
  while (bytes < text.size()) {
    const size_t length = first_char_bytes(text.substr(bytes));
    if (!is_space_char(text.substr(bytes, length))) break;
    bytes += length;
  }
  return bytes;
}

size_t trailing_space_bytes(std::string_view text) {
  const size_t size = text.size();
  while (!text.empty()) {
    const size_t length = last_char_bytes(text);
    if (!is_space_char(text.substr(text.size() - length))) break;
    text.remove_suffix(length);
  }
  return size - text.size();
}

size_t find_bytes(std::string_view text, std::string_view wanted, size_t begin, size_t end) {
  const void* found = memmem(text.data() + begin, end - begin, wanted.data(), wanted.size());
  return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data())
               : std::string_view::npos;
}

bool is_line_end(std::string_view one) {
  for (const std::string_view end : {"\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\xC2\x85",
                                     "\xE2\x80\xA8", "\xE2\x80\xA9"}) {
    if (one == end) return true;
  }
  return false;
}

}  // namespace tandem::jinja
