#include "text/jinja/expression.h"

#include "text/jinja/builtins.h"

namespace tandem::jinja {
namespace {

struct OperatorRow {
  std::string_view spelling;
  Operator operation;
};
constexpr OperatorRow kComparisons[] = {
    {"==", Operator::equal},  {"!=", Operator::not_equal},  {"<", Operator::less},
    {">", Operator::greater}, {"<=", Operator::less_equal}, {">=", Operator::greater_equal},
};
constexpr OperatorRow kProducts[] = {
    {"*", Operator::multiply},
    {"/", Operator::divide},
    {"//", Operator::floor_divide},
    {"%", Operator::modulo},
};

}  // namespace

// Fills in the depth, once the parts are there.
ExprPtr ExpressionParser::checked(ExprPtr expr) const {
  for (const ExprPtr& part : expr->parts) {
    if (part) expr->depth = std::max(expr->depth, part->depth + 1);
  }
  if (expr->depth > kMaxNesting) fail_at(expr->line, "nested deeper than {}", kMaxNesting);
  return expr;
}

ExprPtr ExpressionParser::make(ExprKind kind) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = cursor_.peek().line;
  return expr;
}

ExprPtr ExpressionParser::make(ExprKind kind, ExprPtr first, ExprPtr second) const {
  ExprPtr expr = make(kind);
  expr->line = first->line;
  expr->parts.push_back(std::move(first));
  expr->parts.push_back(std::move(second));
  return checked(std::move(expr));
}

ExprPtr ExpressionParser::make(Operator operation, ExprPtr left, ExprPtr right) const {
  ExprPtr expr = make(ExprKind::arithmetic, std::move(left), std::move(right));
  expr->operators = {operation};
  return expr;
}

ExprPtr ExpressionParser::parse_expression() {
  const TokenCursor::Nesting nesting(cursor_);
  const bool was_below_if = is_below_if;
  ExprPtr value = parse_or();
  while (cursor_.take_word("if")) {
    is_below_if = true;
    ExprPtr expr = make(ExprKind::conditional, std::move(value), parse_or());
    expr->parts.push_back(cursor_.take_word("else") ? parse_expression() : nullptr);
    value = checked(std::move(expr));
  }
  is_below_if = was_below_if;
  return value;
}

ExprPtr ExpressionParser::parse_tuple(bool conditional) {
  const auto parse_item = [&] { return conditional ? parse_expression() : parse_or(); };
  ExprPtr first = parse_item();
  if (!cursor_.next_is_op(",")) return first;
  ExprPtr tuple = make(ExprKind::tuple);
  tuple->parts.push_back(std::move(first));
  while (cursor_.take_op(",")) {
    const TokenKind next = cursor_.peek().kind;
    const bool ends = next == TokenKind::print_end || next == TokenKind::block_end ||
                      cursor_.next_is_op(")") || cursor_.next_is_op("]") ||
                      cursor_.next_is_op("=") || cursor_.next_is_word("in");
    if (ends) break;
    tuple->parts.push_back(parse_item());
  }
  return checked(std::move(tuple));
}

// --- operators: one function a level of precedence, loosest first; the levels are Jinja's, not
// Python's: '~' binds tighter than '+', and filters and tests tighter than any operator.

ExprPtr ExpressionParser::parse_or() {
  ExprPtr left = parse_and();
  while (cursor_.take_word("or")) left = make(ExprKind::logical_or, std::move(left), parse_and());
  return left;
}

ExprPtr ExpressionParser::parse_and() {
  ExprPtr left = parse_not();
  while (cursor_.take_word("and")) left = make(ExprKind::logical_and, std::move(left), parse_not());
  return left;
}

ExprPtr ExpressionParser::parse_not() {
  if (!cursor_.next_is_word("not")) return parse_comparison();
  const TokenCursor::Nesting nesting(cursor_);
  ExprPtr expr = make(ExprKind::logical_not);
  cursor_.take();
  expr->parts.push_back(parse_not());
  return checked(std::move(expr));
}

bool ExpressionParser::take_comparison(Operator& operation) {
  for (const OperatorRow& row : kComparisons) {
    if (!cursor_.take_op(row.spelling)) continue;
    operation = row.operation;
    return true;
  }
  const bool negated = cursor_.next_is_word("not") && cursor_.next_is(TokenKind::name, "in", 1);
  if (negated) cursor_.take();
  operation = negated ? Operator::not_in : Operator::in;
  return cursor_.take_word("in");
}

ExprPtr ExpressionParser::parse_comparison() {
  ExprPtr left = parse_sum();
  Operator operation;
  if (!take_comparison(operation)) return left;
  ExprPtr chain = make(ExprKind::compare, std::move(left), parse_sum());
  chain->operators.push_back(operation);
  while (take_comparison(operation)) {
    chain->operators.push_back(operation);
    chain->parts.push_back(parse_sum());
  }
  return checked(std::move(chain));
}

ExprPtr ExpressionParser::parse_sum() {
  ExprPtr left = parse_concatenation();
  for (;;) {
    if (cursor_.take_op("+")) {
      left = make(Operator::add, std::move(left), parse_concatenation());
    } else if (cursor_.take_op("-")) {
      left = make(Operator::subtract, std::move(left), parse_concatenation());
    } else {
      return left;
    }
  }
}

ExprPtr ExpressionParser::parse_concatenation() {
  ExprPtr left = parse_product();
  if (!cursor_.next_is_op("~")) return left;
  ExprPtr expr = make(ExprKind::concatenate);
  expr->parts.push_back(std::move(left));
  while (cursor_.take_op("~")) expr->parts.push_back(parse_product());
  return checked(std::move(expr));
}

ExprPtr ExpressionParser::parse_product() {
  ExprPtr left = parse_power();
  for (;;) {
    const auto row = std::ranges::find_if(
        kProducts, [&](const OperatorRow& each) { return cursor_.next_is_op(each.spelling); });
    if (row == std::end(kProducts)) return left;
    cursor_.take();
    left = make(row->operation, std::move(left), parse_power());
  }
}

ExprPtr ExpressionParser::parse_power() {
  ExprPtr left = parse_unary(true);
  while (cursor_.take_op("**")) {
    left = make(Operator::power, std::move(left), parse_unary(true));
  }
  return left;
}

ExprPtr ExpressionParser::parse_unary(bool with_filters) {
  ExprPtr value;
  if (cursor_.next_is_op("-") || cursor_.next_is_op("+")) {
    const TokenCursor::Nesting nesting(cursor_);
    value = make(ExprKind::unary);
    value->operators = {cursor_.take().text == "-" ? Operator::subtract : Operator::add};
    value->parts.push_back(parse_unary(false));
    value = checked(std::move(value));
  } else {
    value = parse_primary();
  }
  value = parse_postfix(std::move(value));
  return with_filters ? parse_filters(std::move(value)) : std::move(value);
}

// --- filters, tests and calls

ExprPtr ExpressionParser::parse_filters(ExprPtr value) {
  for (;;) {
    if (cursor_.take_op("|")) {
      value = parse_filter(std::move(value));
    } else if (cursor_.take_word("is")) {
      value = parse_test(std::move(value));
    } else if (cursor_.next_is_op("(")) {
      value = parse_postfix(std::move(value));
    } else {
      return value;
    }
  }
}

ExprPtr ExpressionParser::parse_captured_filters() {
  ExprPtr value = parse_filter(make(ExprKind::captured));
  while (cursor_.take_op("|")) value = parse_filter(std::move(value));
  return value;
}

ExprPtr ExpressionParser::parse_filter(ExprPtr value) {
  ExprPtr expr = make(ExprKind::filter);
  expr->text = cursor_.take_name();
  expr->builtin = find_filter(expr->text);
  if (!expr->builtin && !is_below_if) {
    fail_at(expr->line, "filter {} is not known", quote(expr->text));
  }
  expr->parts.push_back(std::move(value));
  if (cursor_.take_op("(")) parse_arguments(*expr);
  return checked(std::move(expr));
}

ExprPtr ExpressionParser::parse_test(ExprPtr value) {
  const bool negated = cursor_.take_word("not");
  ExprPtr expr = make(ExprKind::test);
  expr->text = cursor_.next_is_word("in") ? cursor_.take().text : cursor_.take_name();
  expr->builtin = find_test(expr->text);
  if (!expr->builtin && !is_below_if) {
    fail_at(expr->line, "test {} is not known", quote(expr->text));
  }
  expr->parts.push_back(std::move(value));
  const Token& next = cursor_.peek();
  const bool begins_value = next.kind == TokenKind::string || next.kind == TokenKind::integer ||
                            next.kind == TokenKind::real || cursor_.next_is_op("[") ||
                            cursor_.next_is_op("{") ||
                            (next.kind == TokenKind::name && next.text != "else" &&
                             next.text != "or" && next.text != "and");
  if (cursor_.take_op("(")) {
    parse_arguments(*expr);
  } else if (begins_value) {
    if (cursor_.next_is_word("is")) fail_at(next.line, "tests cannot be chained");
    expr->parts.push_back(parse_postfix(parse_primary()));
    expr->names.emplace_back();
  }
  expr = checked(std::move(expr));
  if (!negated) return expr;
  ExprPtr opposite = make(ExprKind::logical_not);
  opposite->parts.push_back(std::move(expr));
  return checked(std::move(opposite));
}

// Up to the ")", which is taken.
void ExpressionParser::parse_arguments(Expr& expr) {
  const TokenCursor::Nesting nesting(cursor_);
  bool only_named = false;
  while (!cursor_.take_op(")")) {
    const bool is_named =
        cursor_.peek().kind == TokenKind::name && cursor_.next_is(TokenKind::op, "=", 1);
    std::string name;
    if (cursor_.take_op("*")) {
      name = "*";
    } else if (cursor_.take_op("**")) {
      name = "**";
    } else if (is_named) {
      name = cursor_.take_name();
      cursor_.take();
    } else if (only_named) {
      cursor_.refuse("an argument by name");
    }
    only_named = only_named || is_named || name == "**";
    expr.names.push_back(std::move(name));
    expr.parts.push_back(parse_expression());
    if (!cursor_.next_is_op(")")) cursor_.expect_op(",");
  }
}

ExprPtr ExpressionParser::parse_postfix(ExprPtr value) {
  for (;;) {
    if (cursor_.take_op(".")) {
      value = parse_member(std::move(value));
    } else if (cursor_.take_op("[")) {
      value = parse_subscript(std::move(value));
    } else if (cursor_.next_is_op("(")) {
      ExprPtr expr = make(ExprKind::call);
      cursor_.take();
      expr->parts.push_back(std::move(value));
      parse_arguments(*expr);
      value = checked(std::move(expr));
    } else {
      return value;
    }
  }
}

ExprPtr ExpressionParser::parse_member(ExprPtr object) {
  if (cursor_.peek().kind == TokenKind::integer) {
    ExprPtr index = make(ExprKind::constant);
    index->value = cursor_.take().number;
    return make(ExprKind::item, std::move(object), std::move(index));
  }
  ExprPtr expr = make(ExprKind::attribute);
  if (cursor_.peek().kind != TokenKind::name) cursor_.refuse("a name");
  expr->text = cursor_.take().text;
  expr->parts.push_back(std::move(object));
  return checked(std::move(expr));
}

ExprPtr ExpressionParser::parse_subscript(ExprPtr object) {
  const auto at_end = [&] { return cursor_.next_is_op("]"); };
  ExprPtr begin = cursor_.next_is_op(":") ? nullptr : parse_tuple();
  if (begin && at_end()) {
    cursor_.take();
    return make(ExprKind::item, std::move(object), std::move(begin));
  }
  ExprPtr expr = make(ExprKind::slice, std::move(object), std::move(begin));
  cursor_.expect_op(":");
  expr->parts.push_back(at_end() || cursor_.next_is_op(":") ? nullptr : parse_expression());
  const bool has_step = cursor_.take_op(":") && !at_end();
  expr->parts.push_back(has_step ? parse_expression() : nullptr);
  cursor_.expect_op("]");
  return checked(std::move(expr));
}

// --- values

ExprPtr ExpressionParser::parse_primary() {
  ExprPtr expr = make(ExprKind::constant);
  switch (cursor_.peek().kind) {
    case TokenKind::string: {
      std::string text;
      while (cursor_.peek().kind == TokenKind::string) text += cursor_.take().text;
      expr->value = markup_value(text);
      return expr;
    }
    case TokenKind::integer:
      expr->value = cursor_.take().number;
      return expr;
    case TokenKind::real:
      expr->value = cursor_.take().real;
      return expr;
    case TokenKind::name:
      return parse_named();
    default:
      break;
  }
  if (cursor_.take_op("(")) return parse_parentheses();
  if (cursor_.take_op("{")) {
    expr->kind = ExprKind::dict;
    parse_entries(*expr);
  } else if (cursor_.take_op("[")) {
    expr->kind = ExprKind::list;
    while (!cursor_.take_op("]")) {
      expr->parts.push_back(parse_expression());
      if (!cursor_.next_is_op("]")) cursor_.expect_op(",");
    }
  } else {
    cursor_.refuse("an expression");
  }
  return checked(std::move(expr));
}

ExprPtr ExpressionParser::parse_parentheses() {
  if (cursor_.take_op(")")) return make(ExprKind::tuple);
  ExprPtr expr = parse_tuple();
  cursor_.expect_op(")");
  return expr;
}

void ExpressionParser::parse_entries(Expr& expr) {
  while (!cursor_.take_op("}")) {
    expr.parts.push_back(parse_expression());
    cursor_.expect_op(":");
    expr.parts.push_back(parse_expression());
    if (!cursor_.next_is_op("}")) cursor_.expect_op(",");
  }
}

ExprPtr ExpressionParser::parse_named() {
  ExprPtr expr = make(ExprKind::constant);
  std::string name = cursor_.take().text;
  if (name == "true" || name == "True") {
    expr->value = true;
  } else if (name == "false" || name == "False") {
    expr->value = false;
  } else if (name == "none" || name == "None") {
    expr->value = None();
  } else {
    expr->kind = ExprKind::name;
    expr->text = std::move(name);
  }
  return expr;
}

}  // namespace tandem::jinja
