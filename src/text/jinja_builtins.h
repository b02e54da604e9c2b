// The filters, tests and methods of a chat template: a new one is a function and a row.
#pragma once

#include <span>
#include <string_view>

#include "text/jinja_value.h"
#include "text/jinja_work.h"

namespace tandem::jinja {

struct Builtin {
  std::string_view name;
  int min_args, max_args;  // besides self
  Value (*run)(Work& work, const Value& self, std::span<const Value> args);
};

// nullptr when there is none of that name.
const Builtin* find_filter(std::string_view name);
const Builtin* find_test(std::string_view name);
const Builtin* find_method(std::string_view name);

// A value as it is printed. Throws bad_file for a list or an object.
TextPtr to_text(Work& work, const Value& value);

// Item `index` of a list or character `index` of a string, negative from the end; undefined
// outside.
Value item_at(Work& work, const Value& sequence, int64_t index);

}  // namespace tandem::jinja
