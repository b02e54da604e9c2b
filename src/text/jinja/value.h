// The values of a chat template: Python's, as far as Jinja shows them. Text remembers for each byte
// whether it is markup, that is, written by the template's author (or a BOS, an EOS or the name of
// a well-known role), or content, that is, written by a user or a model.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja/work.h"

namespace tandem::jinja {

struct TaggedText {
  std::string bytes;
  std::string is_markup;  // one 0 or 1 a byte
  bool is_safe = false;   // went through the filter `safe`: what is added to it is escaped as HTML

  TaggedText() = default;
  TaggedText(std::string_view text, bool markup) : bytes(text), is_markup(text.size(), markup) {}
  size_t size() const { return bytes.size(); }
  std::string_view view(size_t begin) const { return std::string_view(bytes).substr(begin); }
  void append(const TaggedText& other) {
    bytes += other.bytes;
    is_markup += other.is_markup;
  }
  void append(std::string_view text, bool markup) {
    bytes += text;
    is_markup.append(text.size(), markup ? 1 : 0);
  }
  TaggedText substr(size_t begin, size_t count) const {
    TaggedText part;
    part.bytes = bytes.substr(begin, count);
    part.is_markup = is_markup.substr(begin, count);
    part.is_safe = is_safe;
    return part;
  }
};

struct List;
struct Dict;
struct Namespace;
struct Loop;
struct Callable;
struct Undefined {};
struct None {};
using TextPtr = std::shared_ptr<const TaggedText>;
using ListPtr = std::shared_ptr<const List>;
using DictPtr = std::shared_ptr<const Dict>;
using NamespacePtr = std::shared_ptr<Namespace>;
using LoopPtr = std::shared_ptr<Loop>;
using CallablePtr = std::shared_ptr<const Callable>;
using Value = std::variant<Undefined, None, bool, int64_t, double, TextPtr, ListPtr, DictPtr,
                           NamespacePtr, LoopPtr, CallablePtr>;

enum class ListKind : uint8_t {
  list,
  tuple,
  range,
  keys,  // of a dict, and so on: no items by index
  values,
  items,
  generator,  // what `map`, `select` and so on return: gone through once, of unknown length
};

struct List {
  std::vector<Value> items;
  ListKind kind = ListKind::list;
  int depth = 1;                            // of values in values
  int64_t start = 0, stop = 0, stride = 1;  // range
  mutable size_t num_taken = 0;             // generator
};

// In order of insertion. Keys are what Python can hash.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  std::unordered_map<std::string, size_t> positions;  // by hash_key
  int depth = 1;

  const Value* find(std::string_view name) const;  // null: absent
};

// The only values that a template may change.
struct Namespace {
  std::map<std::string, Value, std::less<>> entries;
};

struct Node;
struct Builtin;
struct Scope;

// The variable `loop`.
struct Loop {
  std::vector<Value> items;
  size_t index = 0;
  int depth = 0;  // of a recursive loop
  std::optional<std::vector<Value>> last_changed;
  const Node* recursive = nullptr;  // {% for ... recursive %}: what loop(...) renders
  std::weak_ptr<Scope> scope;       // around it
};

// A function, a method together with its object, or a macro.
struct Callable {
  std::string name;
  const Builtin* builtin = nullptr;
  Value self;
  const Node* macro = nullptr;
  std::weak_ptr<Scope> scope;  // around the macro; the interpreter keeps it
};

inline Value text_value(TaggedText text) {
  return std::make_shared<const TaggedText>(std::move(text));
}
inline Value markup_value(std::string_view text) { return text_value(TaggedText(text, true)); }

template <typename T>
const T* pointer_in(const Value& value) {
  const auto* held = std::get_if<std::shared_ptr<const T>>(&value);
  return held ? held->get() : nullptr;
}
inline const TaggedText* as_text(const Value& value) { return pointer_in<TaggedText>(value); }
inline const List* as_list(const Value& value) { return pointer_in<List>(value); }
inline const Dict* as_dict(const Value& value) { return pointer_in<Dict>(value); }
inline const Callable* as_callable(const Value& value) { return pointer_in<Callable>(value); }
inline Namespace* as_namespace(const Value& value) {
  const NamespacePtr* held = std::get_if<NamespacePtr>(&value);
  return held ? held->get() : nullptr;
}
inline Loop* as_loop(const Value& value) {
  const LoopPtr* held = std::get_if<LoopPtr>(&value);
  return held ? held->get() : nullptr;
}
inline bool is_undefined(const Value& value) { return std::holds_alternative<Undefined>(value); }
inline bool is_none(const Value& value) { return std::holds_alternative<None>(value); }
// Python counts True as 1 and False as 0.
std::optional<int64_t> as_integer(const Value& value);
// The same with floats.
std::optional<double> as_number(const Value& value);

// "undefined", "none", "a string": for messages.
const char* kind_name(const Value& value);
// Python's truth: undefined, none, false, 0 and what is empty are false.
bool is_true(const Value& value);

// Equal for two values exactly when Python finds them the same key; nullopt for what it cannot
// hash.
std::optional<std::string> hash_key(const Value& value);

// Both throw bad_file when the value would nest deeper than kMaxNesting, when a namespace would
// become part of a value (so no value can contain itself), or for a key that cannot be hashed.
void append(Work& work, List& list, Value item);
void insert(Work& work, Dict& dict, Value key, Value value);
// Throws bad_file for a namespace.
Value checked_part(const Work& work, Value value);

}  // namespace tandem::jinja
