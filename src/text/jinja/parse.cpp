#include "text/jinja/parse.h"

#include "text/jinja/expression.h"

namespace tandem::jinja {
namespace {

// Whether the variable is read anywhere in the body.
bool reads(const Body& body, std::string_view name);

bool reads(const Expr& expr, std::string_view name) {
  if (expr.kind == ExprKind::name && expr.text == name) return true;
  return std::ranges::any_of(expr.parts,
                             [&](const ExprPtr& part) { return part && reads(*part, name); });
}

bool reads(const ExprPtr& expr, std::string_view name) { return expr && reads(*expr, name); }

bool reads(const Body& body, std::string_view name) {
  return std::ranges::any_of(body, [&](const Node& node) {
    if (reads(node.value, name) || reads(node.condition, name)) return true;
    for (const Parameter& parameter : node.parameters) {
      if (reads(parameter.value, name)) return true;
    }
    return std::ranges::any_of(node.arms, [&](const Arm& arm) {
      return reads(arm.condition, name) || reads(arm.body, name);
    });
  });
}

class Parser {
 public:
  explicit Parser(std::string_view source) : cursor_(tokenize(source)), expressions_(cursor_) {}

  Body run() {
    Body body = parse_body();
    if (cursor_.peek().kind != TokenKind::end) refuse_tag(cursor_.peek(1));
    return body;
  }

 private:
  using ParseTag = void (Parser::*)(Node& node);
  struct TagRow {
    std::string_view name;
    ParseTag parse;
  };

  [[noreturn]] void refuse_tag(const Token& tag) const {
    fail_at(tag.line, "tag {} is not known here", quote(tag.text));
  }

  // Up to a block that no statement begins with, which is left to the caller.
  Body parse_body() {
    const TokenCursor::Nesting nesting(cursor_);
    Body body;
    for (;;) {
      Node node{};
      node.line = cursor_.peek().line;
      if (cursor_.peek().kind == TokenKind::text) {
        node.kind = NodeKind::text;
        node.constant = std::make_shared<const TaggedText>(cursor_.take().text, true);
      } else if (cursor_.peek().kind == TokenKind::print_begin) {
        cursor_.take();
        node.kind = NodeKind::print;
        node.value = expressions_.parse_tuple();
        cursor_.expect(TokenKind::print_end, "}}");
      } else if (cursor_.peek().kind != TokenKind::block_begin || !parse_block(node)) {
        return body;
      }
      body.push_back(std::move(node));
    }
  }

  // The body of a statement with variables of its own: below it, an unknown filter is an error
  // even when an `if` is around it.
  Body parse_scope() {
    const bool was_below_if = std::exchange(expressions_.is_below_if, false);
    Body body = parse_body();
    expressions_.is_below_if = was_below_if;
    return body;
  }

  // False when the block ends or divides an enclosing statement.
  bool parse_block(Node& node) {
    static constexpr TagRow kTags[] = {
        {"if", &Parser::parse_if},      {"for", &Parser::parse_for},
        {"set", &Parser::parse_set},    {"macro", &Parser::parse_macro},
        {"call", &Parser::parse_call},  {"filter", &Parser::parse_filter},
        {"with", &Parser::parse_with},  {"generation", &Parser::parse_generation},
        {"break", &Parser::parse_jump}, {"continue", &Parser::parse_jump},
    };
    const std::string name = cursor_.peek(1).kind == TokenKind::name ? cursor_.peek(1).text : "";
    const auto row = std::ranges::find(kTags, name, &TagRow::name);
    if (row != std::end(kTags)) {
      cursor_.take();
      if (row->parse != &Parser::parse_jump) cursor_.take();
      (this->*row->parse)(node);
      return true;
    }
    if (name == "elif" || name == "else" || name.starts_with("end")) return false;
    refuse_tag(cursor_.peek(1));
  }

  void end_block() { cursor_.expect(TokenKind::block_end, "%}"); }
  void take_end_tag(std::string_view name) {
    if (!cursor_.next_is_tag(name)) fail_at(cursor_.peek().line, "expected the tag {}", name);
    cursor_.take();
    cursor_.take();
    end_block();
  }

  void parse_if(Node& node) {
    node.kind = NodeKind::branch;
    const bool was_below_if = std::exchange(expressions_.is_below_if, true);
    for (;;) {
      ExprPtr condition = expressions_.parse_tuple(false);
      end_block();
      Body body = parse_body();
      node.arms.push_back({std::move(condition), std::move(body)});
      if (!cursor_.next_is_tag("elif")) break;
      cursor_.take();
      cursor_.take();
    }
    parse_else(node);
    expressions_.is_below_if = was_below_if;
    take_end_tag("endif");
  }

  void parse_else(Node& node) {
    if (!cursor_.next_is_tag("else")) return;
    cursor_.take();
    cursor_.take();
    end_block();
    node.arms.push_back({nullptr, parse_body()});
  }

  void parse_for(Node& node) {
    node.kind = NodeKind::loop;
    ++num_fors_;
    node.target = parse_target(false);
    if (!cursor_.take_word("in")) cursor_.refuse("in");
    node.value = expressions_.parse_tuple(false);
    const bool was_below_if = std::exchange(expressions_.is_below_if, false);
    if (cursor_.take_word("if")) node.condition = expressions_.parse_expression();
    node.is_recursive = cursor_.take_word("recursive");
    end_block();
    ++num_loops_;
    node.arms.push_back({nullptr, parse_body()});
    --num_loops_;
    parse_else(node);
    expressions_.is_below_if = was_below_if;
    --num_fors_;
    take_end_tag("endfor");
  }

  // "a", "a, b", "(a, b)", or, where attributes are allowed, "a.b".
  Target parse_target(bool with_attributes) {
    Target target = parse_one_target(with_attributes);
    if (!cursor_.next_is_op(",")) return target;
    Target several;
    several.parts.push_back(std::move(target));
    while (cursor_.take_op(",")) {
      if (cursor_.peek().kind != TokenKind::name && !cursor_.next_is_op("(")) break;
      if (cursor_.next_is_word("in")) break;
      several.parts.push_back(parse_one_target(with_attributes));
    }
    return several;
  }

  Target parse_one_target(bool with_attributes) {
    const TokenCursor::Nesting nesting(cursor_);
    if (cursor_.take_op("(")) {
      Target inner = parse_target(with_attributes);
      cursor_.expect_op(")");
      return inner;
    }
    Target target;
    target.name = cursor_.take_name();
    static constexpr std::string_view kConstants[] = {"true",  "True", "false",
                                                      "False", "none", "None"};
    const bool is_constant = std::ranges::find(kConstants, target.name) != std::end(kConstants);
    if (is_constant || (num_fors_ > 0 && target.name == "loop")) {
      fail_at(cursor_.peek().line, "a value cannot be given to {}", target.name);
    }
    if (with_attributes && cursor_.take_op(".")) target.attribute = cursor_.take_name();
    return target;
  }

  void parse_set(Node& node) {
    node.target = parse_target(true);
    if (cursor_.take_op("=")) {
      node.kind = NodeKind::assign;
      node.value = expressions_.parse_tuple();
      return end_block();
    }
    node.kind = NodeKind::capture;
    if (cursor_.take_op("|")) node.value = expressions_.parse_captured_filters();
    end_block();
    node.arms.push_back({nullptr, parse_scope()});
    take_end_tag("endset");
  }

  // "(a, b=1)" of a macro or a call block, after the "(".
  void parse_signature(Node& node) {
    while (!cursor_.take_op(")")) {
      Parameter parameter;
      parameter.target.name = cursor_.take_name();
      if (cursor_.take_op("=")) {
        parameter.value = expressions_.parse_expression();
      } else if (!node.parameters.empty() && node.parameters.back().value) {
        cursor_.refuse("a parameter with a default, like the one before it");
      }
      node.parameters.push_back(std::move(parameter));
      if (!cursor_.next_is_op(")")) cursor_.expect_op(",");
    }
  }

  // A body that runs on its own, so that no loop around it can be left from it.
  void parse_function_body(Node& node) {
    const int outer_loops = std::exchange(num_loops_, 0);
    node.arms.push_back({nullptr, parse_scope()});
    num_loops_ = outer_loops;
    node.reads_caller = reads(node.arms[0].body, "caller");
    node.reads_varargs = reads(node.arms[0].body, "varargs");
    node.reads_kwargs = reads(node.arms[0].body, "kwargs");
  }

  void parse_macro(Node& node) {
    node.kind = NodeKind::macro;
    node.text = cursor_.take_name();
    cursor_.expect_op("(");
    parse_signature(node);
    end_block();
    parse_function_body(node);
    take_end_tag("endmacro");
  }

  void parse_call(Node& node) {
    node.kind = NodeKind::call;
    node.text = "caller";
    if (cursor_.take_op("(")) parse_signature(node);
    node.value = expressions_.parse_expression();
    if (node.value->kind != ExprKind::call) fail_at(node.line, "expected a call in the tag call");
    end_block();
    parse_function_body(node);
    take_end_tag("endcall");
  }

  void parse_filter(Node& node) {
    node.kind = NodeKind::filter;
    node.value = expressions_.parse_captured_filters();
    end_block();
    node.arms.push_back({nullptr, parse_scope()});
    take_end_tag("endfilter");
  }

  void parse_with(Node& node) {
    node.kind = NodeKind::scope;
    while (cursor_.peek().kind != TokenKind::block_end) {
      if (!node.parameters.empty()) cursor_.expect_op(",");
      Parameter variable;
      variable.target = parse_one_target(false);
      cursor_.expect_op("=");
      variable.value = expressions_.parse_expression();
      node.parameters.push_back(std::move(variable));
    }
    end_block();
    node.arms.push_back({nullptr, parse_scope()});
    take_end_tag("endwith");
  }

  void parse_generation(Node& node) {
    node.kind = NodeKind::scope;
    end_block();
    parse_function_body(node);
    take_end_tag("endgeneration");
  }

  // The tag's name is still to be taken.
  void parse_jump(Node& node) {
    const std::string name = cursor_.take().text;
    if (num_loops_ == 0) fail_at(node.line, "{} outside of a loop", name);
    node.kind = name == "break" ? NodeKind::break_loop : NodeKind::continue_loop;
    end_block();
  }

  TokenCursor cursor_;
  ExpressionParser expressions_;
  int num_fors_ = 0;   // around
  int num_loops_ = 0;  // the same that a break could leave
};

}  // namespace

Body parse(std::string_view source) { return Parser(source).run(); }

}  // namespace tandem::jinja
