// The tokens of a template -> its syntax tree.
#pragma once

#include <string_view>

#include "text/jinja_ast.h"

namespace tandem::jinja {

// Throws bad_file with the line for what is not Jinja and for what this version does not know: a
// tag, filter, test, method, function, loop variable, or nesting deeper than kMaxNesting.
Body parse(std::string_view source);

}  // namespace tandem::jinja
