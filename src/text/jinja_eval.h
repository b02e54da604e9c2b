// A template's syntax tree and its variables -> text.
#pragma once

#include <map>
#include <string>

#include "text/jinja_ast.h"
#include "text/jinja_value.h"

namespace tandem::jinja {

using Variables = std::map<std::string, Value, std::less<>>;

// Throws usage when the template calls raise_exception; bad_file with the line for an operation on
// values it is not made for, or when a limit of jinja_work.h is passed.
TaggedText render(const Body& body, Variables variables);

}  // namespace tandem::jinja
