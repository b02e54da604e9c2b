// The filters, tests, methods and functions of a chat template: a new one is a function and a row.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace tandem::jinja {

// As a template writes them.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// As a builtin gets them: one for each of its parameters, and what "*" and "**" take.
class Bound {
 public:
  bool has(size_t i) const { return i < values.size() && values[i].has_value(); }
  const Value& operator[](size_t i) const { return *values[i]; }
  // The argument, or `fallback` where none is given.
  Value get(size_t i, Value fallback) const { return has(i) ? *values[i] : std::move(fallback); }
  bool flag(size_t i) const { return has(i) && is_true(*values[i]); }

  std::vector<std::optional<Value>> values;
  std::vector<std::pair<std::string, Value>> named;
};

struct Builtin {
  std::string_view name;
  // Names separated by spaces; "a?" may be absent, "_" goes by position only, "*" takes any number
  // of positional arguments and "**" of named ones.
  std::string_view parameters;
  Value (*run)(Work& work, const Value& self, const Bound& args);
};

// Throws bad_file when the arguments are not those of the builtin.
Value run_builtin(Work& work, const Builtin& builtin, const Value& self, Arguments arguments);

// nullptr when there is none of that name.
const Builtin* find_filter(std::string_view name);
const Builtin* find_list_filter(std::string_view name);
const Builtin* find_test(std::string_view name);
const Builtin* find_function(std::string_view name);
const Builtin* find_search_method(std::string_view name);
const Builtin* find_text_method(std::string_view name);
const Builtin* find_list_method(std::string_view name, ListKind kind);
const Builtin* find_dict_method(std::string_view name);
const Builtin* find_loop_method(std::string_view name);

const Builtin* find_in(std::span<const Builtin> rows, std::string_view name);

// The argument as text or an integer. Throws bad_file naming `what` for another kind.
const TaggedText& expect_text(Work& work, const Value& value, std::string_view what);
int64_t expect_integer(Work& work, const Value& value, std::string_view what);
// text[begin, end), in bytes.
Value part_of(Work& work, const TaggedText& text, size_t begin, size_t end);

}  // namespace tandem::jinja
