// The syntax tree of a chat template.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tandem::jinja {

struct Builtin;
struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class ExprKind : uint8_t {
  // leaves
  string,
  integer,
  boolean,
  none,
  name,
  // parts
  list,         // [parts...]
  attribute,    // parts[0].text
  subscript,    // parts[0][parts[1]]
  slice,        // parts[0][parts[1]:parts[2]], either bound may be null
  conditional,  // parts[0] if parts[1] else parts[2], the last may be null
  negate,
  logical_not,
  logical_and,
  logical_or,
  equal,
  not_equal,
  less,
  less_equal,
  greater,
  greater_equal,
  in,
  not_in,
  add,
  subtract,
  multiply,
  modulo,
  concatenate,
  builtin,          // a filter, test or method: builtin->run(parts[0], parts[1...])
  raise_exception,  // raise_exception(parts[0])
  new_namespace,    // namespace(names[i]=parts[i]...)
};

struct Expr {
  ExprKind kind;
  int line = 1;
  int depth = 1;       // of the tree below; bounds recursion
  std::string text;    // string, name, attribute
  int64_t number = 0;  // integer, boolean
  const Builtin* builtin = nullptr;
  std::vector<ExprPtr> parts;
  std::vector<std::string> names;
};

struct Node;
using Body = std::vector<Node>;

enum class NodeKind : uint8_t {
  text,    // name holds it
  print,   // {{ value }}
  branch,  // {% if %}: the first arm whose condition is true
  loop,    // {% for name in value %} arms[0] {% else %} arms[1]
  assign,  // {% set name = value %} or {% set name.attribute = value %}
};

struct Arm {
  ExprPtr condition;  // null: else, or the body of a loop
  Body body;
};

struct Node {
  NodeKind kind;
  int line = 1;
  std::string name, attribute;
  ExprPtr value;
  std::vector<Arm> arms;
};

}  // namespace tandem::jinja
