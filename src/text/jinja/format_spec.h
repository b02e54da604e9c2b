// What Python's two ways of formatting strings share: the directive for one value.
#pragma once

#include <string_view>

#include "text/jinja/value.h"

namespace tandem::jinja {

// What stands between the sign that begins a directive and its type.
struct FormatSpec {
  char fill = ' ', align = 0, sign = 0;  // align: one of < > ^ =, 0: as the type wants
  bool alternate = false, commas = false;
  int64_t width = 0, precision = -1;
  char type = 0;
};

// Digits at text[at...], and at is moved behind them; -1 when there are none. Throws bad_file for a
// width above a million.
int64_t take_number(Work& work, std::string_view text, size_t& at);
// "-", the sign that the spec wants of other numbers, or nothing.
std::string_view sign_of(const FormatSpec& spec, double number);
// All of these append what the spec makes of the value; align is used where the spec has none.
// Throw bad_file for a type that is not known or not made for the value.
void append_padded(Work& work, const FormatSpec& spec, char align, std::string_view sign,
                   const TaggedText& body, TaggedText& out);
void append_number(Work& work, const FormatSpec& spec, const Value& value, TaggedText& out);
void append_string(Work& work, const FormatSpec& spec, char align, const TaggedText& text,
                   TaggedText& out);

}  // namespace tandem::jinja
