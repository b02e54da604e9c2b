#include "text/jinja_builtins.h"

#include <algorithm>
#include <iterator>

namespace tandem::jinja {
namespace {

using Args = std::span<const Value>;

const TaggedText& expect_text(Work& work, const Value& value, const char* what) {
  const TaggedText* text = as_text(value);
  if (text == nullptr) fail_at(work.line, "{} of {}, expected a string", what, kind_name(value));
  return *text;
}

Value part_of(Work& work, const TaggedText& text, size_t begin, size_t end) {
  work.use_bytes(end - begin);
  return text_value(text.substr(begin, end - begin));
}

Value trimmed(Work& work, const TaggedText& text, bool left, bool right) {
  const size_t begin = left ? leading_space_bytes(text.bytes) : 0;
  const std::string_view rest = std::string_view(text.bytes).substr(begin);
  const size_t end = text.size() - (right ? trailing_space_bytes(rest) : 0);
  return part_of(work, text, begin, end);
}

// Letter case beyond ASCII depends on tables and, for some letters, changes their number.
Value with_case(Work& work, const Value& self, bool upper) {
  const TextPtr text = to_text(work, self);
  work.use_bytes(text->size());
  TaggedText changed = *text;
  for (char& c : changed.bytes) {
    if (static_cast<unsigned char>(c) >= 0x80) {
      fail_at(work.line, "{} of text beyond ASCII is not known", upper ? "upper" : "lower");
    }
    if (upper ? c >= 'a' && c <= 'z' : c >= 'A' && c <= 'Z') c ^= 0x20;
  }
  return text_value(std::move(changed));
}

Value filter_trim(Work& work, const Value& self, Args) {
  return trimmed(work, *to_text(work, self), true, true);
}
Value filter_upper(Work& work, const Value& self, Args) { return with_case(work, self, true); }
Value filter_lower(Work& work, const Value& self, Args) { return with_case(work, self, false); }

Value filter_length(Work& work, const Value& self, Args) {
  if (is_undefined(self)) return int64_t{0};
  if (const List* list = as_list(self)) return static_cast<int64_t>(list->items.size());
  if (const Dict* dict = as_dict(self)) return static_cast<int64_t>(dict->entries.size());
  const TaggedText& text = expect_text(work, self, "length");
  work.use_bytes(text.size());
  return count_chars(text.bytes);
}

Value filter_first(Work& work, const Value& self, Args) {
  return is_undefined(self) ? self : item_at(work, self, 0);
}
Value filter_last(Work& work, const Value& self, Args) {
  return is_undefined(self) ? self : item_at(work, self, -1);
}

Value filter_default(Work&, const Value& self, Args args) {
  const bool replaces_false = args.size() > 1 && is_true(args[1]);
  if (!is_undefined(self) && !(replaces_false && !is_true(self))) return self;
  return args.empty() ? text_value(TaggedText()) : args[0];
}

Value test_defined(Work&, const Value& self, Args) { return !is_undefined(self); }
Value test_none(Work&, const Value& self, Args) { return is_none(self); }
Value test_string(Work&, const Value& self, Args) { return as_text(self) != nullptr; }

Value method_strip(Work& work, const Value& self, Args) {
  return trimmed(work, expect_text(work, self, "strip"), true, true);
}
Value method_lstrip(Work& work, const Value& self, Args) {
  return trimmed(work, expect_text(work, self, "lstrip"), true, false);
}
Value method_rstrip(Work& work, const Value& self, Args) {
  return trimmed(work, expect_text(work, self, "rstrip"), false, true);
}
Value method_startswith(Work& work, const Value& self, Args args) {
  const std::string& wanted = expect_text(work, args[0], "startswith").bytes;
  return expect_text(work, self, "startswith").bytes.starts_with(wanted);
}
Value method_endswith(Work& work, const Value& self, Args args) {
  const std::string& wanted = expect_text(work, args[0], "endswith").bytes;
  return expect_text(work, self, "endswith").bytes.ends_with(wanted);
}

constexpr Builtin kFilters[] = {
    {"trim", 0, 0, filter_trim},       {"upper", 0, 0, filter_upper}, {"lower", 0, 0, filter_lower},
    {"length", 0, 0, filter_length},   {"first", 0, 0, filter_first}, {"last", 0, 0, filter_last},
    {"default", 0, 2, filter_default},
};
constexpr Builtin kTests[] = {
    {"defined", 0, 0, test_defined},
    {"none", 0, 0, test_none},
    {"string", 0, 0, test_string},
};
constexpr Builtin kMethods[] = {
    {"strip", 0, 0, method_strip},       {"lstrip", 0, 0, method_lstrip},
    {"rstrip", 0, 0, method_rstrip},     {"upper", 0, 0, filter_upper},
    {"lower", 0, 0, filter_lower},       {"startswith", 1, 1, method_startswith},
    {"endswith", 1, 1, method_endswith},
};

const Builtin* find_in(std::span<const Builtin> rows, std::string_view name) {
  const auto row = std::ranges::find(rows, name, &Builtin::name);
  return row == rows.end() ? nullptr : &*row;
}

}  // namespace

const Builtin* find_filter(std::string_view name) { return find_in(kFilters, name); }
const Builtin* find_test(std::string_view name) { return find_in(kTests, name); }
const Builtin* find_method(std::string_view name) { return find_in(kMethods, name); }

TextPtr to_text(Work& work, const Value& value) {
  if (const TextPtr* text = std::get_if<TextPtr>(&value)) return *text;
  const auto markup = [](std::string_view text) {
    return std::make_shared<const TaggedText>(text, true);
  };
  if (is_undefined(value)) return markup("");
  if (is_none(value)) return markup("None");
  if (const bool* flag = std::get_if<bool>(&value)) return markup(*flag ? "True" : "False");
  if (const int64_t* number = std::get_if<int64_t>(&value)) return markup(std::to_string(*number));
  fail_at(work.line, "{} cannot be printed", kind_name(value));
}

Value item_at(Work& work, const Value& sequence, int64_t index) {
  if (const List* list = as_list(sequence)) {
    const auto size = static_cast<int64_t>(list->items.size());
    if (index < 0) index += size;
    return index >= 0 && index < size ? list->items[static_cast<size_t>(index)] : Value();
  }
  const TaggedText& text = expect_text(work, sequence, "item");
  work.use_bytes(text.size());  // finding a character walks the text
  if (index < 0) index += count_chars(text.bytes);
  size_t at = 0;
  for (; index > 0 && at < text.size(); --index) {
    at += first_char_bytes(std::string_view(text.bytes).substr(at));
  }
  if (index != 0 || at == text.size()) return {};
  const size_t bytes = first_char_bytes(std::string_view(text.bytes).substr(at));
  return part_of(work, text, at, at + bytes);
}

}  // namespace tandem::jinja
