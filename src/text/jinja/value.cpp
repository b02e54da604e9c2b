#include "text/jinja/value.h"

#include <algorithm>
#include <cmath>

namespace tandem::jinja {
namespace {

int depth_of(const Value& value) {
  if (const List* list = as_list(value)) return list->depth;
  if (const Dict* dict = as_dict(value)) return dict->depth;
  return 0;
}

std::string text_key(std::string_view text) {
  std::string key(1, 's');
  key += text;
  return key;
}

void deepen(const Work& work, int& depth, const Value& part) {
  depth = std::max(depth, depth_of(part) + 1);
  if (depth > kMaxNesting) work.refuse("values nested deeper than {}", kMaxNesting);
}

}  // namespace

std::optional<int64_t> as_integer(const Value& value) {
  if (const int64_t* number = std::get_if<int64_t>(&value)) return *number;
  if (const bool* flag = std::get_if<bool>(&value)) return *flag ? 1 : 0;
  return std::nullopt;
}

std::optional<double> as_number(const Value& value) {
  if (const double* number = std::get_if<double>(&value)) return *number;
  if (const std::optional<int64_t> number = as_integer(value)) return static_cast<double>(*number);
  return std::nullopt;
}

const char* kind_name(const Value& value) {
  static constexpr const char* kNames[] = {"undefined",   "none",     "a bool",    "an integer",
                                           "a float",     "a string", "a list",    "an object",
                                           "a namespace", "a loop",   "a function"};
  return kNames[value.index()];
}

bool is_true(const Value& value) {
  if (is_undefined(value) || is_none(value)) return false;
  if (const std::optional<double> number = as_number(value)) return *number != 0;
  if (const TaggedText* text = as_text(value)) return text->size() > 0;
  if (const List* list = as_list(value)) {
    return list->kind == ListKind::generator || !list->items.empty();
  }
  if (const Dict* dict = as_dict(value)) return !dict->entries.empty();
  return true;
}

const Value* Dict::find(std::string_view name) const {
  const auto found = positions.find(text_key(name));
  return found == positions.end() ? nullptr : &entries[found->second].second;
}

std::optional<std::string> hash_key(const Value& value) {
  if (is_undefined(value)) return "undefined";
  if (is_none(value)) return "none";
  if (const TaggedText* text = as_text(value)) return text_key(text->bytes);
  if (const std::optional<int64_t> number = as_integer(value)) return fmt::format("n{}", *number);
  if (const double* number = std::get_if<double>(&value)) {
    const bool is_whole = *number == std::trunc(*number) && std::abs(*number) < 0x1p63;
    return is_whole ? fmt::format("n{}", static_cast<int64_t>(*number))
                    : fmt::format("n{}", *number);
  }
  if (as_dict(value)) return std::nullopt;
  if (const List* list = as_list(value)) {
    if (list->kind != ListKind::tuple) return std::nullopt;
    std::string key = fmt::format("t{}", list->items.size());
    for (const Value& item : list->items) {
      const std::optional<std::string> part = hash_key(item);
      if (!part) return std::nullopt;
      key += fmt::format(":{}:{}", part->size(), *part);
    }
    return key;
  }
  const void* identity = as_namespace(value);
  if (const Loop* loop = as_loop(value)) identity = loop;
  if (const Callable* callable = as_callable(value)) identity = callable;
  return fmt::format("p{}", identity);
}

Value checked_part(const Work& work, Value value) {
  if (as_namespace(value)) work.refuse("a namespace inside a value is not known");
  return value;
}

void append(Work& work, List& list, Value item) {
  work.use_bytes(kItemBytes);
  deepen(work, list.depth, item);
  list.items.push_back(checked_part(work, std::move(item)));
}

void insert(Work& work, Dict& dict, Value key, Value value) {
  std::optional<std::string> hashed = hash_key(key);
  if (!hashed) work.refuse("{} as a key", kind_name(key));
  work.use_bytes(2 * kItemBytes + hashed->size());
  deepen(work, dict.depth, key);
  deepen(work, dict.depth, value);
  const auto [found, is_new] = dict.positions.try_emplace(*std::move(hashed), dict.entries.size());
  if (is_new) {
    dict.entries.emplace_back(std::move(key), checked_part(work, std::move(value)));
  } else {
    dict.entries[found->second].second = checked_part(work, std::move(value));
  }
}

}  // namespace tandem::jinja
