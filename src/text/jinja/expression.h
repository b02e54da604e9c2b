// The expressions of a template -> their syntax trees.
#pragma once

#include "text/jinja/ast.h"
#include "text/jinja/cursor.h"

namespace tandem::jinja {

// All throw bad_file with the line for what is not Jinja and for nesting deeper than kMaxNesting.
class ExpressionParser {
 public:
  explicit ExpressionParser(TokenCursor& cursor) : cursor_(cursor) {}

  // Unknown filters and tests are errors of the template, but below an `if` only when they are
  // reached: so Jinja does it.
  bool is_below_if = false;

  ExprPtr parse_expression();
  // The same without `a if b else c` on the outside.
  ExprPtr parse_unconditional() { return parse_or(); }
  // Expressions divided by commas: more than one, or a trailing comma, make a tuple.
  // conditional: whether they may be `a if b else c`.
  ExprPtr parse_tuple(bool conditional = true);
  // "| a | b(1)" after `value`.
  ExprPtr parse_filters(ExprPtr value);
  // "a | b(1)" where the value is what is `captured`.
  ExprPtr parse_captured_filters();

 private:
  ExprPtr make(ExprKind kind) const;
  ExprPtr make(ExprKind kind, ExprPtr first, ExprPtr second) const;
  ExprPtr make(Operator operation, ExprPtr left, ExprPtr right) const;
  ExprPtr checked(ExprPtr expr) const;

  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  bool take_comparison(Operator& operation);
  ExprPtr parse_comparison();
  ExprPtr parse_sum();
  ExprPtr parse_concatenation();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filters);
  ExprPtr parse_filter(ExprPtr value);
  ExprPtr parse_test(ExprPtr value);
  void parse_arguments(Expr& expr);
  ExprPtr parse_postfix(ExprPtr value);
  ExprPtr parse_member(ExprPtr object);
  ExprPtr parse_subscript(ExprPtr object);
  ExprPtr parse_primary();
  ExprPtr parse_named();
  ExprPtr parse_parentheses();
  void parse_entries(Expr& expr);

  TokenCursor& cursor_;
};

}  // namespace tandem::jinja
