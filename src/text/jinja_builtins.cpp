#include "text/jinja_builtins.h"

#include <algorithm>
#include <cstring>
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

Value filter_string(Work& work, const Value& self, Args) { return to_text(work, self); }

Value filter_join(Work& work, const Value& self, Args args) {
  TaggedText joined;
  const List* list = as_list(self);
  if (!list && !is_undefined(self)) fail_at(work.line, "join of {}", kind_name(self));
  for (size_t i = 0; list && i < list->items.size(); ++i) {
    const TextPtr item = to_text(work, list->items[i]);
    const TextPtr between = i > 0 && !args.empty() ? to_text(work, args[0]) : nullptr;
    work.use_bytes(item->size() + (between ? between->size() : 0));
    if (between) joined.append(*between);
    joined.append(*item);
  }
  return text_value(std::move(joined));
}

// A string as Python's json.dumps(ensure_ascii=False) spells it; an escape has its byte's origin.
void append_json_text(Work& work, const TaggedText& text, TaggedText& out) {
  out.append(TaggedText("\"", true));
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text.bytes[i];
    static constexpr std::string_view kEscaped = "\"\\\n\r\t\b\f", kLetters = "\"\\nrtbf";
    const size_t row = kEscaped.find(c);
    std::string spelled(1, c);
    if (row != std::string_view::npos) {
      spelled = fmt::format("\\{}", kLetters[row]);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      spelled = fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    }
    work.use_bytes(spelled.size());
    out.append(TaggedText(spelled, text.is_markup[i] != 0));
  }
  out.append(TaggedText("\"", true));
}

// Lists nest at most kMaxNesting deep, which bounds the recursion.
void append_json(Work& work, const Value& value, TaggedText& out) {
  work.step();
  if (const TaggedText* text = as_text(value)) return append_json_text(work, *text, out);
  if (const List* list = as_list(value)) {
    out.append(TaggedText("[", true));
    for (size_t i = 0; i < list->items.size(); ++i) {
      if (i > 0) out.append(TaggedText(", ", true));
      append_json(work, list->items[i], out);
    }
    return out.append(TaggedText("]", true));
  }
  if (is_none(value)) return out.append(TaggedText("null", true));
  if (const bool* flag = std::get_if<bool>(&value)) {
    return out.append(TaggedText(*flag ? "true" : "false", true));
  }
  if (!std::holds_alternative<int64_t>(value)) {
    fail_at(work.line, "tojson of {} is not known", kind_name(value));
  }
  out.append(*to_text(work, value));
}

Value filter_tojson(Work& work, const Value& self, Args) {
  TaggedText out;
  append_json(work, self, out);
  return text_value(std::move(out));
}

bool is_sequence(const Value& value) {
  return is_undefined(value) || as_text(value) || as_list(value) || as_dict(value);
}
Value test_iterable(Work&, const Value& self, Args) { return is_sequence(self); }
Value test_mapping(Work&, const Value& self, Args) {
  const Dict* dict = as_dict(self);
  return dict != nullptr && !dict->is_namespace;
}
Value test_number(Work&, const Value& self, Args) {
  return std::holds_alternative<int64_t>(self) || std::holds_alternative<bool>(self);
}
Value test_true(Work&, const Value& self, Args) {
  const bool* flag = std::get_if<bool>(&self);
  return flag != nullptr && *flag;
}
Value test_false(Work&, const Value& self, Args) {
  const bool* flag = std::get_if<bool>(&self);
  return flag != nullptr && !*flag;
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

Value method_split(Work& work, const Value& self, Args args) {
  constexpr size_t kItemBytes = 256;  // what a part counts as, besides its text
  const TaggedText& text = expect_text(work, self, "split");
  const std::string& separator = expect_text(work, args[0], "split").bytes;
  if (separator.empty()) fail_at(work.line, "split at an empty string");
  auto parts = std::make_shared<List>();
  for (size_t begin = 0;;) {
    const void* found =
        memmem(text.bytes.data() + begin, text.size() - begin, separator.data(), separator.size());
    const size_t end =
        found ? static_cast<size_t>(static_cast<const char*>(found) - text.bytes.data())
              : text.size();
    work.use_bytes(kItemBytes);
    parts->items.push_back(part_of(work, text, begin, end));
    if (!found) return ListPtr(std::move(parts));
    begin = end + separator.size();
  }
}

constexpr Builtin kFilters[] = {
    {"trim", 0, 0, filter_trim},       {"upper", 0, 0, filter_upper},
    {"lower", 0, 0, filter_lower},     {"length", 0, 0, filter_length},
    {"first", 0, 0, filter_first},     {"last", 0, 0, filter_last},
    {"default", 0, 2, filter_default}, {"count", 0, 0, filter_length},
    {"string", 0, 0, filter_string},   {"join", 0, 1, filter_join},
    {"tojson", 0, 0, filter_tojson},
};
constexpr Builtin kTests[] = {
    {"defined", 0, 0, test_defined}, {"none", 0, 0, test_none},
    {"string", 0, 0, test_string},   {"iterable", 0, 0, test_iterable},
    {"mapping", 0, 0, test_mapping}, {"number", 0, 0, test_number},
    {"true", 0, 0, test_true},       {"false", 0, 0, test_false},
};
constexpr Builtin kMethods[] = {
    {"strip", 0, 0, method_strip},       {"lstrip", 0, 0, method_lstrip},
    {"rstrip", 0, 0, method_rstrip},     {"upper", 0, 0, filter_upper},
    {"lower", 0, 0, filter_lower},       {"startswith", 1, 1, method_startswith},
    {"endswith", 1, 1, method_endswith}, {"split", 1, 1, method_split},
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
