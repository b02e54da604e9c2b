// The values of a chat template. Text remembers for each byte whether it is markup, that is,
// written by the template's author (or a BOS or EOS), or content, that is, written by a user or a
// model.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace tandem::jinja {

struct TaggedText {
  std::string bytes;
  std::string is_markup;  // one 0 or 1 a byte

  TaggedText() = default;
  TaggedText(std::string_view text, bool markup) : bytes(text), is_markup(text.size(), markup) {}
  size_t size() const { return bytes.size(); }
  void append(const TaggedText& other) {
    bytes += other.bytes;
    is_markup += other.is_markup;
  }
  TaggedText substr(size_t begin, size_t count) const {
    TaggedText part;
    part.bytes = bytes.substr(begin, count);
    part.is_markup = is_markup.substr(begin, count);
    return part;
  }
};

struct List;
struct Dict;
struct Undefined {};
struct None {};
using TextPtr = std::shared_ptr<const TaggedText>;
using ListPtr = std::shared_ptr<const List>;
using DictPtr = std::shared_ptr<Dict>;
using Value = std::variant<Undefined, None, bool, int64_t, TextPtr, ListPtr, DictPtr>;

struct List {
  std::vector<Value> items;
  int depth = 1;  // of lists in lists; bounds recursion
};

// A message, `loop`, or a namespace (the only one that a template may change).
struct Dict {
  std::map<std::string, Value, std::less<>> entries;
  bool is_namespace = false;
};

inline Value text_value(TaggedText text) {
  return std::make_shared<const TaggedText>(std::move(text));
}
inline const TaggedText* as_text(const Value& value) {
  const TextPtr* text = std::get_if<TextPtr>(&value);
  return text ? text->get() : nullptr;
}
inline const List* as_list(const Value& value) {
  const ListPtr* list = std::get_if<ListPtr>(&value);
  return list ? list->get() : nullptr;
}
inline Dict* as_dict(const Value& value) {
  const DictPtr* dict = std::get_if<DictPtr>(&value);
  return dict ? dict->get() : nullptr;
}
inline bool is_undefined(const Value& value) { return std::holds_alternative<Undefined>(value); }
inline bool is_none(const Value& value) { return std::holds_alternative<None>(value); }

// "undefined", "none", "a string": for messages.
const char* kind_name(const Value& value);
// Python's truth: undefined, none, false, 0 and what is empty are false.
bool is_true(const Value& value);

// Bytes of the character at the start or the end of text, 1 for a byte that is not UTF-8. text must
// not be empty.
size_t first_char_bytes(std::string_view text);
size_t last_char_bytes(std::string_view text);
// Characters of text.
int64_t count_chars(std::string_view text);
// Bytes of white space, in Python's sense, at the start and the end of text.
size_t leading_space_bytes(std::string_view text);
size_t trailing_space_bytes(std::string_view text);

}  // namespace tandem::jinja
