#include "text/jinja_value.h"

#include <algorithm>

#include "base/utf8.h"
#include "text/unicode_class.h"

namespace tandem::jinja {
namespace {

bool is_space_char(std::string_view one) {
  const size_t length = utf8_valid_length(one);
  return length == one.size() && is_python_space(utf8_code_point(one, length));
}

}  // namespace

const char* kind_name(const Value& value) {
  static constexpr const char* kNames[] = {"undefined", "none",   "a bool",   "an integer",
                                           "a string",  "a list", "an object"};
  return kNames[value.index()];
}

bool is_true(const Value& value) {
  if (const bool* flag = std::get_if<bool>(&value)) return *flag;
  if (const int64_t* number = std::get_if<int64_t>(&value)) return *number != 0;
  if (const TaggedText* text = as_text(value)) return text->size() > 0;
  if (const List* list = as_list(value)) return !list->items.empty();
  if (const Dict* dict = as_dict(value)) return dict->is_namespace || !dict->entries.empty();
  return false;
}

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

}  // namespace tandem::jinja
