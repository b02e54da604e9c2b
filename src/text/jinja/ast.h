// The syntax tree of a chat template.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "text/jinja/value.h"

namespace tandem::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class ExprKind : uint8_t {
  constant,
  name,
  captured,     // what the body of a filter or set block has printed
  list,         // [parts...]
  tuple,        // (parts...)
  dict,         // {parts[0]: parts[1], ...}
  attribute,    // parts[0].text
  item,         // parts[0][parts[1]]
  slice,        // parts[0][parts[1]:parts[2]:parts[3]], each bound may be null
  conditional,  // parts[0] if parts[1] else parts[2], the last may be null
  logical_not,
  logical_and,
  logical_or,
  compare,      // parts[0] operators[0] parts[1] operators[1] parts[2] ...
  unary,        // operators[0] parts[0]
  arithmetic,   // parts[0] operators[0] parts[1]
  concatenate,  // parts[0] ~ parts[1] ~ ...
  call,         // parts[0](parts[1...])
  filter,       // parts[0] | text(parts[1...])
  test,         // parts[0] is text(parts[1...])
};

enum class Operator : uint8_t {
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
  divide,
  floor_divide,
  modulo,
  power,
};

struct Expr {
  ExprKind kind;
  int line = 1;
  int depth = 1;                     // of the tree below; bounds recursion
  std::string text;                  // name, attribute, filter, test
  Value value;                       // constant
  const Builtin* builtin = nullptr;  // filter, test; null: none of that name
  std::vector<Operator> operators;
  std::vector<ExprPtr> parts;
  // Of the arguments in parts[1...]: "" by position, "*" and "**" to be unpacked, else by name.
  std::vector<std::string> names;
};

// What a value is assigned to: a name, an attribute of a namespace, or several of them.
struct Target {
  std::string name, attribute;
  std::vector<Target> parts;
};

using Body = std::vector<Node>;

enum class NodeKind : uint8_t {
  text,     // constant
  print,    // {{ value }}
  branch,   // {% if %}: the first arm whose condition is true
  loop,     // {% for target in value if condition %} arms[0] {% else %} arms[1]
  assign,   // {% set target = value %}
  capture,  // {% set target %} arms[0] {% endset %}; value filters what is `captured`
  filter,   // {% filter %} arms[0]: prints value, which filters what is `captured`
  macro,    // {% macro text(parameters) %} arms[0]
  call,     // {% call(parameters) value %} arms[0]: prints value, called with caller=arms[0]
  scope,    // {% with parameters %} and {% generation %}: arms[0] with variables of its own
  break_loop,
  continue_loop,
};

struct Arm {
  ExprPtr condition;  // null: else, or the only body
  Body body;
};

struct Parameter {
  Target target;
  ExprPtr value;  // its default; null: none
};

struct Node {
  NodeKind kind;
  int line = 1;
  bool is_recursive = false;
  // Of a macro: only what its body reads can be passed besides its parameters.
  bool reads_caller = false, reads_varargs = false, reads_kwargs = false;
  std::string text;
  TextPtr constant;
  Target target;
  ExprPtr value, condition;
  std::vector<Parameter> parameters;
  std::vector<Arm> arms;
};

}  // namespace tandem::jinja
