#include "text/jinja_parse.h"

#include <algorithm>

#include "text/jinja_builtins.h"
#include "text/jinja_lexer.h"
#include "text/jinja_work.h"

namespace tandem::jinja {
namespace {

constexpr std::string_view kReserved[] = {"and", "or",   "not",  "in", "is",
                                          "if",  "else", "elif", "for"};
constexpr std::string_view kLoopAttributes[] = {"index", "index0", "first", "last", "length"};

template <typename Range>
bool contains(const Range& range, std::string_view wanted) {
  return std::ranges::find(range, wanted) != std::end(range);
}

struct OperatorRow {
  std::string_view spelling;
  ExprKind kind;
};
constexpr OperatorRow kComparisons[] = {
    {"==", ExprKind::equal},  {"!=", ExprKind::not_equal},  {"<", ExprKind::less},
    {">", ExprKind::greater}, {"<=", ExprKind::less_equal}, {">=", ExprKind::greater_equal},
};

// One function a level of precedence, loosest first; the levels are Jinja's, not Python's: '~'
// binds tighter than '+', and filters and tests tighter than any operator.
class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)) {}

  Body run() {
    Body body = parse_body();
    if (peek().kind != TokenKind::end) refuse_tag(tokens_[at_ + 1]);
    return body;
  }

 private:
  struct Nesting {
    explicit Nesting(Parser& parser) : parser_(parser) {
      if (++parser_.nesting_ > kMaxNesting) {
        fail_at(parser_.peek().line, "nested deeper than {}", kMaxNesting);
      }
    }
    ~Nesting() { --parser_.nesting_; }
    Parser& parser_;
  };

  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  Token take() { return at_ + 1 < tokens_.size() ? std::move(tokens_[at_++]) : tokens_.back(); }
  bool next_is(TokenKind kind, std::string_view text, size_t ahead = 0) const {
    return peek(ahead).kind == kind && peek(ahead).text == text;
  }
  bool next_is_op(std::string_view op) const { return next_is(TokenKind::op, op); }
  bool next_is_word(std::string_view word) const { return next_is(TokenKind::name, word); }
  bool take_op(std::string_view op) { return next_is_op(op) && (++at_, true); }
  bool take_word(std::string_view word) { return next_is_word(word) && (++at_, true); }

  [[noreturn]] void refuse(std::string_view expected) const {
    const Token& token = peek();
    const std::string_view end = "the end of the tag";
    fail_at(token.line, "found {}, expected {}", token.text.empty() ? end : quote(token.text),
            expected);
  }
  [[noreturn]] void refuse_tag(const Token& tag) const {
    fail_at(tag.line, "tag {} is not known here", quote(tag.text));
  }
  void expect_op(std::string_view op) {
    if (!take_op(op)) refuse(op);
  }
  void expect(TokenKind kind, std::string_view what) {
    if (peek().kind != kind) refuse(what);
    ++at_;
  }
  std::string take_name() {
    if (peek().kind != TokenKind::name || contains(kReserved, peek().text)) refuse("a name");
    return take().text;
  }

  // Fills in the depth, once the parts are there.
  ExprPtr checked(ExprPtr expr) const {
    for (const ExprPtr& part : expr->parts) {
      if (part) expr->depth = std::max(expr->depth, part->depth + 1);
    }
    if (expr->depth > kMaxNesting) fail_at(expr->line, "nested deeper than {}", kMaxNesting);
    return expr;
  }
  ExprPtr make(ExprKind kind) const {
    auto expr = std::make_unique<Expr>();
    expr->kind = kind;
    expr->line = peek().line;
    return expr;
  }
  ExprPtr make(ExprKind kind, ExprPtr first, ExprPtr second) const {
    ExprPtr expr = make(kind);
    expr->line = first->line;
    expr->parts.push_back(std::move(first));
    expr->parts.push_back(std::move(second));
    return checked(std::move(expr));
  }

  // --- statements

  // Up to a block that no statement begins with, which is left to the caller.
  Body parse_body() {
    const Nesting nesting(*this);
    Body body;
    for (;;) {
      Node node{};
      node.line = peek().line;
      if (peek().kind == TokenKind::text) {
        node.kind = NodeKind::text;
        node.name = take().text;
      } else if (peek().kind == TokenKind::print_begin) {
        ++at_;
        node.kind = NodeKind::print;
        node.value = parse_expression();
        expect(TokenKind::print_end, "}}");
      } else if (peek().kind != TokenKind::block_begin || !parse_block(node)) {
        return body;
      }
      body.push_back(std::move(node));
    }
  }

  bool next_is_tag(std::string_view name) const {
    return peek().kind == TokenKind::block_begin && next_is(TokenKind::name, name, 1);
  }

  // False when the block ends or divides an enclosing statement.
  bool parse_block(Node& node) {
    if (next_is_tag("if")) {
      parse_if(node);
    } else if (next_is_tag("for")) {
      parse_for(node);
    } else if (next_is_tag("set")) {
      parse_set(node);
    } else {
      for (const char* tag : {"elif", "else", "endif", "endfor"}) {
        if (next_is_tag(tag)) return false;
      }
      refuse_tag(peek(1));
    }
    return true;
  }

  void end_block() { expect(TokenKind::block_end, "%}"); }
  void take_end_tag(std::string_view name) {
    if (!next_is_tag(name)) fail_at(peek().line, "expected the tag {}", name);
    at_ += 2;
    end_block();
  }

  void parse_if(Node& node) {
    node.kind = NodeKind::branch;
    do {
      at_ += 2;
      ExprPtr condition = parse_or();
      end_block();
      node.arms.push_back({std::move(condition), parse_body()});
    } while (next_is_tag("elif"));
    parse_else(node);
    take_end_tag("endif");
  }

  void parse_else(Node& node) {
    if (!next_is_tag("else")) return;
    at_ += 2;
    end_block();
    node.arms.push_back({nullptr, parse_body()});
  }

  void parse_for(Node& node) {
    at_ += 2;
    node.kind = NodeKind::loop;
    node.name = take_name();
    if (!take_word("in")) refuse("in");
    node.value = parse_or();
    end_block();
    node.arms.push_back({nullptr, parse_body()});
    parse_else(node);
    take_end_tag("endfor");
  }

  void parse_set(Node& node) {
    at_ += 2;
    node.kind = NodeKind::assign;
    node.name = take_name();
    if (take_op(".")) node.attribute = take_name();
    expect_op("=");
    node.value = parse_expression();
    end_block();
  }

  // --- expressions

  ExprPtr parse_expression() {
    const Nesting nesting(*this);
    ExprPtr value = parse_or();
    while (take_word("if")) {
      ExprPtr expr = make(ExprKind::conditional, std::move(value), parse_or());
      expr->parts.push_back(take_word("else") ? parse_expression() : nullptr);
      value = checked(std::move(expr));
    }
    return value;
  }

  ExprPtr parse_or() {
    ExprPtr left = parse_and();
    while (take_word("or")) left = make(ExprKind::logical_or, std::move(left), parse_and());
    return left;
  }

  ExprPtr parse_and() {
    ExprPtr left = parse_not();
    while (take_word("and")) left = make(ExprKind::logical_and, std::move(left), parse_not());
    return left;
  }

  ExprPtr parse_not() {
    if (!next_is_word("not")) return parse_comparison();
    const Nesting nesting(*this);
    ExprPtr expr = make(ExprKind::logical_not);
    ++at_;
    expr->parts.push_back(parse_not());
    return checked(std::move(expr));
  }

  bool take_comparison(ExprKind& kind) {
    for (const OperatorRow& row : kComparisons) {
      if (!take_op(row.spelling)) continue;
      kind = row.kind;
      return true;
    }
    const bool negated = next_is_word("not") && next_is(TokenKind::name, "in", 1);
    if (!negated && !next_is_word("in")) return false;
    at_ += negated ? 2 : 1;
    kind = negated ? ExprKind::not_in : ExprKind::in;
    return true;
  }

  ExprPtr parse_comparison() {
    ExprPtr left = parse_sum();
    ExprKind kind;
    if (!take_comparison(kind)) return left;
    left = make(kind, std::move(left), parse_sum());
    if (take_comparison(kind)) fail_at(peek().line, "chained comparisons are not known");
    return left;
  }

  ExprPtr parse_sum() {
    ExprPtr left = parse_concatenation();
    for (;;) {
      if (take_op("+")) {
        left = make(ExprKind::add, std::move(left), parse_concatenation());
      } else if (take_op("-")) {
        left = make(ExprKind::subtract, std::move(left), parse_concatenation());
      } else {
        return left;
      }
    }
  }

  ExprPtr parse_concatenation() {
    ExprPtr left = parse_product();
    while (take_op("~")) left = make(ExprKind::concatenate, std::move(left), parse_product());
    return left;
  }

  ExprPtr parse_product() {
    ExprPtr left = parse_unary();
    for (;;) {
      if (take_op("*")) {
        left = make(ExprKind::multiply, std::move(left), parse_unary());
      } else if (take_op("%")) {
        left = make(ExprKind::modulo, std::move(left), parse_unary());
      } else {
        return left;
      }
    }
  }

  ExprPtr parse_unary() { return parse_filters(parse_negation()); }

  ExprPtr parse_negation() {
    if (!next_is_op("-")) return parse_postfix(parse_primary());
    const Nesting nesting(*this);
    ExprPtr expr = make(ExprKind::negate);
    ++at_;
    expr->parts.push_back(parse_negation());
    return checked(std::move(expr));
  }

  ExprPtr parse_filters(ExprPtr value) {
    for (;;) {
      if (take_op("|")) {
        const std::string name = take_name();
        value = parse_builtin("filter", name, find_filter(name), std::move(value));
      } else if (take_word("is")) {
        const bool negated = take_word("not");
        const std::string name = take_name();
        value = parse_builtin("test", name, find_test(name), std::move(value));
        if (!negated) continue;
        ExprPtr expr = make(ExprKind::logical_not);
        expr->parts.push_back(std::move(value));
        value = checked(std::move(expr));
      } else {
        return value;
      }
    }
  }

  // The arguments of a filter, test or method whose name has just been taken.
  ExprPtr parse_builtin(const char* what, const std::string& name, const Builtin* builtin,
                        ExprPtr self) {
    if (builtin == nullptr) fail_at(peek().line, "{} {} is not known", what, quote(name));
    ExprPtr expr = make(ExprKind::builtin);
    expr->builtin = builtin;
    expr->parts.push_back(std::move(self));
    if (take_op("(")) parse_items(*expr, ")");
    const int num_args = static_cast<int>(expr->parts.size()) - 1;
    if (num_args < builtin->min_args || num_args > builtin->max_args) {
      fail_at(expr->line, "{} {} with {} arguments is not known", what, name, num_args);
    }
    return checked(std::move(expr));
  }

  // Expressions divided by commas up to `end`, which is taken.
  void parse_items(Expr& expr, std::string_view end) {
    while (!take_op(end)) {
      expr.parts.push_back(parse_expression());
      if (!next_is_op(end)) expect_op(",");
    }
  }

  ExprPtr parse_postfix(ExprPtr value) {
    for (;;) {
      if (take_op(".")) {
        value = parse_member(std::move(value));
      } else if (take_op("[")) {
        value = parse_subscript(std::move(value));
      } else if (next_is_op("(")) {
        fail_at(peek().line, "function {} is not known",
                value->kind == ExprKind::name ? quote(value->text) : "of this form");
      } else {
        return value;
      }
    }
  }

  ExprPtr parse_member(ExprPtr object) {
    const std::string name = take_name();
    if (next_is_op("(")) {
      return parse_builtin("method", name, find_method(name), std::move(object));
    }
    if (name.starts_with("__")) fail_at(peek().line, "attribute {} is not known", quote(name));
    const bool of_loop = object->kind == ExprKind::name && object->text == "loop";
    if (of_loop && !contains(kLoopAttributes, name)) {
      fail_at(peek().line, "loop.{} is not known", name);
    }
    ExprPtr expr = make(ExprKind::attribute);
    expr->text = name;
    expr->parts.push_back(std::move(object));
    return checked(std::move(expr));
  }

  ExprPtr parse_subscript(ExprPtr object) {
    ExprPtr begin = next_is_op(":") ? nullptr : parse_expression();
    if (!take_op(":")) {
      expect_op("]");
      return make(ExprKind::subscript, std::move(object), std::move(begin));
    }
    ExprPtr expr = make(ExprKind::slice, std::move(object), std::move(begin));
    if (next_is_op(":")) fail_at(peek().line, "slices with a step are not known");
    expr->parts.push_back(next_is_op("]") ? nullptr : parse_expression());
    if (next_is_op(":")) fail_at(peek().line, "slices with a step are not known");
    expect_op("]");
    return checked(std::move(expr));
  }

  ExprPtr parse_primary() {
    ExprPtr expr = make(ExprKind::string);
    switch (peek().kind) {
      case TokenKind::string:
        while (peek().kind == TokenKind::string) expr->text += take().text;
        return expr;
      case TokenKind::integer:
        expr->kind = ExprKind::integer;
        expr->number = take().number;
        return expr;
      case TokenKind::name:
        return parse_named(std::move(expr));
      default:
        break;
    }
    if (take_op("(")) {
      expr = parse_expression();
      if (next_is_op(",")) fail_at(peek().line, "tuples are not known");
      expect_op(")");
      return expr;
    }
    if (!take_op("[")) refuse("an expression");
    expr->kind = ExprKind::list;
    parse_items(*expr, "]");
    return checked(std::move(expr));
  }

  ExprPtr parse_named(ExprPtr expr) {
    expr->text = take_name();
    const std::string& name = expr->text;
    if (name == "true" || name == "True" || name == "false" || name == "False") {
      expr->kind = ExprKind::boolean;
      expr->number = name == "true" || name == "True";
    } else if (name == "none" || name == "None") {
      expr->kind = ExprKind::none;
    } else if (name == "raise_exception" && take_op("(")) {
      expr->kind = ExprKind::raise_exception;
      parse_items(*expr, ")");
      if (expr->parts.size() != 1) fail_at(expr->line, "raise_exception takes one argument");
    } else if (name == "namespace" && take_op("(")) {
      expr->kind = ExprKind::new_namespace;
      while (!take_op(")")) {
        expr->names.push_back(take_name());
        expect_op("=");
        expr->parts.push_back(parse_expression());
        if (!next_is_op(")")) expect_op(",");
      }
    } else {
      expr->kind = ExprKind::name;
    }
    return checked(std::move(expr));
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
};

}  // namespace

Body parse(std::string_view source) { return Parser(source).run(); }

}  // namespace tandem::jinja
