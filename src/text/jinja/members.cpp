#include "text/jinja/members.h"

#include "text/jinja/builtins.h"
#include "text/jinja/operators.h"
#include "text/jinja/text.h"

namespace tandem::jinja {
namespace {

const Builtin* find_method(const Value& object, const std::string& name) {
  if (as_text(object)) return find_text_method(name);
  if (as_dict(object)) return find_dict_method(name);
  if (const List* list = as_list(object)) return find_list_method(name, list->kind);
  return as_loop(object) ? find_loop_method(name) : nullptr;
}

// Methods that change their object: Python has them, so they hide an entry of the same name.
bool is_changing_method(const Value& object, std::string_view name) {
  static constexpr std::string_view kOfDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  return as_dict(object) && std::ranges::find(kOfDict, name) != std::end(kOfDict);
}

Value neighbor(const Loop& loop, size_t index) {
  return index < loop.items.size() ? loop.items[index] : Value();
}

Value loop_attribute(const Loop& loop, std::string_view name) {
  const auto index = static_cast<int64_t>(loop.index);
  const auto length = static_cast<int64_t>(loop.items.size());
  if (name == "index") return index + 1;
  if (name == "index0") return index;
  if (name == "revindex") return length - index;
  if (name == "revindex0") return length - index - 1;
  if (name == "first") return index == 0;
  if (name == "last") return index + 1 == length;
  if (name == "length") return length;
  if (name == "depth") return int64_t{loop.depth} + 1;
  if (name == "depth0") return int64_t{loop.depth};
  if (name == "previtem") return index == 0 ? Value() : neighbor(loop, loop.index - 1);
  if (name == "nextitem") return neighbor(loop, loop.index + 1);
  return {};
}

Value char_at(Work& work, const TaggedText& text, int64_t index) {
  work.use_bytes(text.size());  // finding a character walks the text
  if (index < 0) index += count_chars(text.bytes);
  size_t at = 0;
  for (; index > 0 && at < text.size(); --index) at += first_char_bytes(text.view(at));
  if (index != 0 || at == text.size()) return {};
  return part_of(work, text, at, at + first_char_bytes(text.view(at)));
}

// The item proper, without a look at attributes; undefined: there is none.
Value plain_item(Work& work, const Value& object, const Value& key) {
  if (const Dict* dict = as_dict(object)) {
    const std::optional<std::string> hashed = hash_key(key);
    const auto found = hashed ? dict->positions.find(*hashed) : dict->positions.end();
    return found == dict->positions.end() ? Value() : dict->entries[found->second].second;
  }
  std::optional<int64_t> index = as_integer(key);
  if (!index) return {};
  if (const TaggedText* text = as_text(object)) return char_at(work, *text, *index);
  const List* list = as_list(object);
  if (!list || list->kind >= ListKind::keys) return {};
  const auto size = static_cast<int64_t>(list->items.size());
  if (*index < 0) *index += size;
  return *index >= 0 && *index < size ? list->items[static_cast<size_t>(*index)] : Value();
}

struct Range {
  int64_t begin, end, step;
};

// Python's slice.indices.
Range slice_range(Work& work, const Value& begin, const Value& end, const Value& step,
                  int64_t length) {
  Range range{0, 0, is_none(step) ? 1 : expect_integer(work, step, "a slice step")};
  if (range.step == 0) work.refuse("a slice step of 0");
  const int64_t lowest = range.step < 0 ? -1 : 0;
  const int64_t highest = range.step < 0 ? length - 1 : length;
  const auto clamped = [&](const Value& bound, int64_t absent) {
    if (is_none(bound)) return absent;
    const int64_t at = expect_integer(work, bound, "a slice bound");
    return std::clamp(at < 0 ? at + length : at, lowest, highest);
  };
  range.begin = clamped(begin, range.step < 0 ? highest : lowest);
  range.end = clamped(end, range.step < 0 ? lowest : highest);
  return range;
}

template <typename Visit>
void for_each_in(const Range& range, Visit visit) {
  int64_t at = range.begin;
  while (range.step > 0 ? at < range.end : at > range.end) {
    visit(static_cast<size_t>(at));
    if (__builtin_add_overflow(at, range.step, &at)) return;
  }
}

}  // namespace

Value attribute_of(Work& work, const Value& object, const std::string& name) {
  if (is_undefined(object)) work.refuse("{} of what is undefined", quote(name));
  if (name.starts_with("__") || is_changing_method(object, name)) return {};
  if (const Builtin* method = find_method(object, name)) {
    auto callable = std::make_shared<Callable>();
    callable->name = name;
    callable->builtin = method;
    callable->self = object;
    return CallablePtr(std::move(callable));
  }
  if (const Namespace* names = as_namespace(object)) {
    const auto entry = names->entries.find(name);
    return entry == names->entries.end() ? Value() : entry->second;
  }
  if (const Loop* loop = as_loop(object)) return loop_attribute(*loop, name);
  if (const Callable* callable = as_callable(object); callable && callable->macro) {
    return name == "name" ? markup_value(callable->name) : Value();
  }
  const Dict* dict = as_dict(object);
  const Value* entry = dict ? dict->find(name) : nullptr;
  return entry ? *entry : Value();
}

Value item_of(Work& work, const Value& object, const Value& key) {
  if (is_undefined(object)) work.refuse("an item of what is undefined");
  Value item = plain_item(work, object, key);
  const TaggedText* name = as_text(key);
  // A dict's entry may be undefined itself, but then its name is no attribute either.
  return is_undefined(item) && name ? attribute_of(work, object, name->bytes) : item;
}

Value slice_of(Work& work, const Value& object, const Value& begin, const Value& end,
               const Value& step) {
  const List* list = as_list(object);
  const TaggedText* text = as_text(object);
  if (list && list->kind >= ListKind::keys) list = nullptr;
  if (!list && !text) work.refuse("a slice of {}", kind_name(object));
  if (list) {
    const Range range =
        slice_range(work, begin, end, step, static_cast<int64_t>(list->items.size()));
    auto part = std::make_shared<List>();
    part->kind = list->kind;
    for_each_in(range, [&](size_t i) { append(work, *part, list->items[i]); });
    if (list->kind == ListKind::range) {
      const auto bound = [&](int64_t from, int64_t by, int64_t times) {
        int64_t product = 0, sum = 0;
        if (__builtin_mul_overflow(by, times, &product) ||
            __builtin_add_overflow(from, product, &sum)) {
          work.refuse("a slice of a range that does not fit 64 bits");
        }
        return sum;
      };
      part->stride = bound(0, list->stride, range.step);
      part->start = bound(list->start, list->stride, range.begin);
      part->stop = bound(list->start, list->stride, range.end);
    }
    return ListPtr(std::move(part));
  }
  work.use_bytes(text->size());
  const std::vector<size_t> starts = char_starts(text->bytes);
  const Range range = slice_range(work, begin, end, step, static_cast<int64_t>(starts.size()) - 1);
  if (range.step == 1) {
    const size_t from = starts[static_cast<size_t>(range.begin)];
    return part_of(work, *text, from, std::max(from, starts[static_cast<size_t>(range.end)]));
  }
  TaggedText part;
  part.is_safe = text->is_safe;
  for_each_in(range,
              [&](size_t i) { part.append(text->substr(starts[i], starts[i + 1] - starts[i])); });
  work.use_bytes(part.size());
  return text_value(std::move(part));
}

}  // namespace tandem::jinja
