// Python's two ways of formatting strings. Both throw bad_file for a directive that Python or this
// version does not know and for values that a directive is not made for.
#pragma once

#include "text/jinja/builtins.h"

namespace tandem::jinja {

// format % values: values is a tuple, a dict (for "%(name)s") or the only value.
Value percent_format(Work& work, const TaggedText& format, const Value& values);
// format.format(*positional, **named).
Value brace_format(Work& work, const TaggedText& format, const Bound& args);

}  // namespace tandem::jinja
