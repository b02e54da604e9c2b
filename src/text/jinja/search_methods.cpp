// The methods that search strings and split them.
#include <algorithm>

#include "text/jinja/builtins.h"
#include "text/jinja/operators.h"
#include "text/jinja/text.h"

namespace tandem::jinja {
namespace {

const TaggedText& self_text(const Value& self) { return *as_text(self); }

// std::string_view::rfind is not linear.
size_t find_last_bytes(std::string_view text, std::string_view wanted, size_t begin, size_t end) {
  const std::string backwards(text.rend() - static_cast<int64_t>(end),
                              text.rend() - static_cast<int64_t>(begin));
  const std::string wanted_backwards(wanted.rbegin(), wanted.rend());
  const size_t at = find_bytes(backwards, wanted_backwards, 0, backwards.size());
  return at == std::string_view::npos ? at : end - at - wanted.size();
}

struct Window {
  size_t begin, end;  // bytes; begin > end: not a part of the text at all
};

// The arguments start and end of find, startswith and so on, at positions i and i + 1.
Window window_of(Work& work, const TaggedText& text, const Bound& args, size_t i) {
  if (!args.has(i)) return {0, text.size()};
  work.use_bytes(text.size());
  const std::vector<size_t> starts = char_starts(text.bytes);
  const auto length = static_cast<int64_t>(starts.size()) - 1;
  const auto position = [&](size_t argument, int64_t absent) {
    if (!args.has(argument) || is_none(args[argument])) return absent;
    const int64_t at = expect_integer(work, args[argument], "a position");
    return at < 0 ? std::max<int64_t>(at + length, 0) : at;
  };
  const int64_t begin = position(i, 0), end = std::min(position(i + 1, length), length);
  if (begin > end) return {1, 0};
  return {starts[static_cast<size_t>(begin)], starts[static_cast<size_t>(end)]};
}

int64_t found_at(Work& work, const Value& self, const Bound& args, bool last) {
  const TaggedText& text = self_text(self);
  const std::string& wanted = expect_text(work, args[0], "find").bytes;
  const Window window = window_of(work, text, args, 1);
  if (window.begin > window.end) return -1;
  work.use_bytes(text.size());
  const size_t at = last ? find_last_bytes(text.bytes, wanted, window.begin, window.end)
                         : find_bytes(text.bytes, wanted, window.begin, window.end);
  return at == std::string::npos ? -1 : count_chars(std::string_view(text.bytes).substr(0, at));
}
Value find(Work& work, const Value& self, const Bound& args) {
  return found_at(work, self, args, false);
}
Value rfind(Work& work, const Value& self, const Bound& args) {
  return found_at(work, self, args, true);
}
Value index(Work& work, const Value& self, const Bound& args) {
  const int64_t at = found_at(work, self, args, false);
  if (at < 0) work.refuse("index of a string that is not there");
  return at;
}
Value rindex(Work& work, const Value& self, const Bound& args) {
  const int64_t at = found_at(work, self, args, true);
  if (at < 0) work.refuse("rindex of a string that is not there");
  return at;
}

bool matches_end(Work& work, const Value& self, const Bound& args, bool at_end) {
  const TaggedText& text = self_text(self);
  const Window window = window_of(work, text, args, 1);
  const List* several = as_list(args[0]);
  if (several && several->kind != ListKind::tuple) work.refuse("startswith of a list");
  const std::vector<Value> one = {args[0]};
  for (const Value& wanted : several ? several->items : one) {
    const std::string& part = expect_text(work, wanted, "startswith").bytes;
    work.step();
    work.use_bytes(part.size());
    if (window.begin > window.end) continue;
    const std::string_view view = text.view(window.begin).substr(0, window.end - window.begin);
    if (at_end ? view.ends_with(part) : view.starts_with(part)) return true;
  }
  return false;
}
Value startswith(Work& work, const Value& self, const Bound& args) {
  return matches_end(work, self, args, false);
}
Value endswith(Work& work, const Value& self, const Bound& args) {
  return matches_end(work, self, args, true);
}

Value count(Work& work, const Value& self, const Bound& args) {
  const TaggedText& text = self_text(self);
  const std::string& wanted = expect_text(work, args[0], "count").bytes;
  const Window window = window_of(work, text, args, 1);
  if (window.begin > window.end) return int64_t{0};
  work.use_bytes(text.size());
  const std::string_view view = text.view(window.begin).substr(0, window.end - window.begin);
  if (wanted.empty()) return count_chars(view) + 1;
  int64_t found = 0;
  for (size_t at = 0;; ++found) {
    at = find_bytes(view, wanted, at, view.size());
    if (at == std::string_view::npos) return found;
    at += wanted.size();
  }
}

// --- splitting

Value as_tuple(Work& work, std::vector<Value> items) {
  auto tuple = std::make_shared<List>();
  tuple->kind = ListKind::tuple;
  for (Value& item : items) append(work, *tuple, std::move(item));
  return ListPtr(std::move(tuple));
}

// Parts between runs of white space. After `limit` of them (-1: none) the rest is one part, which
// keeps the white space at its end.
std::vector<Value> split_at_space(Work& work, const TaggedText& text, int64_t limit) {
  std::vector<Value> parts;
  size_t begin = leading_space_bytes(text.bytes);
  while (begin < text.size()) {
    if (static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(part_of(work, text, begin, text.size()));
      break;
    }
    size_t end = begin;
    while (end < text.size()) {
      const size_t bytes = first_char_bytes(text.view(end));
      if (leading_space_bytes(text.view(end).substr(0, bytes)) > 0) break;
      end += bytes;
    }
    parts.push_back(part_of(work, text, begin, end));
    begin = end + leading_space_bytes(text.view(end));
  }
  return parts;
}

// The same from the end.
std::vector<Value> split_last_at_space(Work& work, const TaggedText& text, int64_t limit) {
  std::vector<Value> parts;
  const auto head = [&](size_t bytes) { return std::string_view(text.bytes).substr(0, bytes); };
  size_t end = text.size() - trailing_space_bytes(text.bytes);
  while (end > 0) {
    if (static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(part_of(work, text, 0, end));
      break;
    }
    size_t begin = end;
    while (begin > 0) {
      const size_t bytes = last_char_bytes(head(begin));
      if (trailing_space_bytes(head(begin).substr(begin - bytes)) > 0) break;
      begin -= bytes;
    }
    parts.push_back(part_of(work, text, begin, end));
    end = begin - trailing_space_bytes(head(begin));
  }
  std::ranges::reverse(parts);
  return parts;
}

std::vector<Value> split_at(Work& work, const TaggedText& text, const std::string& separator,
                            int64_t limit) {
  std::vector<Value> parts;
  size_t begin = 0;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t at = find_bytes(text.bytes, separator, begin, text.size());
    if (at == std::string_view::npos) break;
    work.use_bytes(kItemBytes);
    parts.push_back(part_of(work, text, begin, at));
    begin = at + separator.size();
  }
  parts.push_back(part_of(work, text, begin, text.size()));
  return parts;
}

TaggedText backwards(const TaggedText& text) {
  TaggedText reversed = text;
  std::ranges::reverse(reversed.bytes);
  std::ranges::reverse(reversed.is_markup);
  return reversed;
}

Value split_from(Work& work, const Value& self, const Bound& args, bool right) {
  const TaggedText& text = self_text(self);
  const int64_t limit = args.has(1) ? expect_integer(work, args[1], "split") : -1;
  std::vector<Value> parts;
  if (!args.has(0) || is_none(args[0])) {
    parts = right ? split_last_at_space(work, text, limit) : split_at_space(work, text, limit);
  } else {
    const std::string& separator = expect_text(work, args[0], "split").bytes;
    if (separator.empty()) work.refuse("split at an empty string");
    if (!right) {
      parts = split_at(work, text, separator, limit);
    } else {
      const std::string end_first(separator.rbegin(), separator.rend());
      parts = split_at(work, backwards(text), end_first, limit);
      for (Value& part : parts) part = text_value(backwards(*as_text(part)));
      std::ranges::reverse(parts);
    }
  }
  auto list = std::make_shared<List>();
  for (Value& part : parts) append(work, *list, std::move(part));
  return ListPtr(std::move(list));
}
Value split(Work& work, const Value& self, const Bound& args) {
  return split_from(work, self, args, false);
}
Value rsplit(Work& work, const Value& self, const Bound& args) {
  return split_from(work, self, args, true);
}

Value splitlines(Work& work, const Value& self, const Bound& args) {
  const TaggedText& text = self_text(self);
  auto lines = std::make_shared<List>();
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    size_t bytes = first_char_bytes(text.view(at));
    if (is_line_end(text.view(at).substr(0, bytes))) {
      if (text.view(at).starts_with("\r\n")) bytes = 2;
      append(work, *lines, part_of(work, text, begin, args.flag(0) ? at + bytes : at));
      begin = at + bytes;
    }
    at += bytes;
  }
  if (begin < text.size()) append(work, *lines, part_of(work, text, begin, text.size()));
  return ListPtr(std::move(lines));
}

Value parted(Work& work, const Value& self, const Bound& args, bool last) {
  const TaggedText& text = self_text(self);
  const std::string& separator = expect_text(work, args[0], "partition").bytes;
  if (separator.empty()) work.refuse("partition at an empty string");
  const size_t at = last ? find_last_bytes(text.bytes, separator, 0, text.size())
                         : find_bytes(text.bytes, separator, 0, text.size());
  if (at == std::string_view::npos) {
    const Value empty = markup_value("");
    return last ? as_tuple(work, {empty, empty, self}) : as_tuple(work, {self, empty, empty});
  }
  return as_tuple(work, {part_of(work, text, 0, at), part_of(work, text, at, at + separator.size()),
                         part_of(work, text, at + separator.size(), text.size())});
}
Value partition(Work& work, const Value& self, const Bound& args) {
  return parted(work, self, args, false);
}
Value rpartition(Work& work, const Value& self, const Bound& args) {
  return parted(work, self, args, true);
}

constexpr Builtin kSearchMethods[] = {
    {"count", "_ _? _?", count},
    {"endswith", "_ _? _?", endswith},
    {"find", "_ _? _?", find},
    {"index", "_ _? _?", index},
    {"partition", "_", partition},
    {"rfind", "_ _? _?", rfind},
    {"rindex", "_ _? _?", rindex},
    {"rpartition", "_", rpartition},
    {"rsplit", "sep? maxsplit?", rsplit},
    {"split", "sep? maxsplit?", split},
    {"splitlines", "keepends?", splitlines},
    {"startswith", "_ _? _?", startswith},
};

}  // namespace

const Builtin* find_search_method(std::string_view name) { return find_in(kSearchMethods, name); }

}  // namespace tandem::jinja
