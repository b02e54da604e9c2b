// Values -> text, as Python's str, repr and json.dumps spell them. Text keeps its origin; what is
// added around it is markup.
#pragma once

#include <string>

#include "text/jinja/value.h"

namespace tandem::jinja {

// str(value). Throws bad_file for what has no spelling of its own: a function, a generator.
TextPtr to_text(Work& work, const Value& value);
// repr(value).
TextPtr to_repr(Work& work, const Value& value);
// repr of a float: "1.0", "1e+16", "inf".
std::string float_text(double number);

struct JsonStyle {
  bool ascii_only = false;
  bool sorts_keys = false;
  std::optional<TaggedText> indent;  // of one level; none: one line
  TaggedText item_separator = TaggedText(", ", true);
  TaggedText key_separator = TaggedText(": ", true);
};
// json.dumps(value, ...). Throws bad_file for what JSON does not have.
TextPtr to_json(Work& work, const Value& value, const JsonStyle& style);

// Both joined; where one of them is safe, the other is escaped as HTML.
Value joined(Work& work, const TaggedText& left, const TaggedText& right);
// &, <, >, ' and " as HTML writes them.
TaggedText html_escaped(Work& work, const TaggedText& text);

}  // namespace tandem::jinja
