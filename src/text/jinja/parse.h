// The source of a template -> its syntax tree.
#pragma once

#include <string_view>

#include "text/jinja/ast.h"

namespace tandem::jinja {

// Throws bad_file with the line for what is not Jinja, for tags, filters and tests that are not
// known, and for nesting deeper than kMaxNesting.
Body parse(std::string_view source);

}  // namespace tandem::jinja
