// A template's syntax tree and its variables -> text.
#pragma once

#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/builtins.h"
#include "text/jinja/value.h"

namespace tandem::jinja {

using Variables = std::map<std::string, Value, std::less<>>;

// The variables of a loop's iteration, a macro's call and so on; what it lacks is looked up around
// it.
struct Scope {
  Variables variables;
  std::shared_ptr<Scope> around;  // null: the outermost
};

class Interpreter {
 public:
  // clock: what strftime_now tells.
  Interpreter(Variables variables, std::function<std::tm()> clock);

  // Throws usage when the template calls raise_exception; bad_file with the line for an operation
  // on values it is not made for, or when a limit of work.h is passed.
  TaggedText run(const Body& body);

 private:
  enum class Flow : uint8_t { on, break_loop, continue_loop };

  // Statements: statements.cpp
  Flow render(const Body& body);
  Flow render_node(const Node& node);
  Flow render_branch(const Node& node);
  Flow render_loop(const Node& node, const Value& sequence, int depth);
  std::vector<Value> loop_items(const Node& node, const Value& sequence);
  Flow render_scope(const Node& node);
  void render_call(const Node& node);
  void assign(const Target& target, Value value);
  void print(const TaggedText& text);
  TaggedText captured_from(const std::function<void()>& render_into);
  std::shared_ptr<Scope> inner_scope() const;
  CallablePtr make_macro(const Node& node);

  // Calls: calls.cpp
  Arguments arguments_of(const Expr& expr);
  Value call(const Expr& expr, CallablePtr caller = nullptr);
  Value call_macro(const Callable& macro, Arguments arguments, const CallablePtr& caller);
  void bind(const Callable& macro, Arguments arguments, const CallablePtr& caller);
  Value call_loop(const Loop& loop, Arguments arguments);

  // Expressions: expressions.cpp
  Value look_up(const std::string& name) const;
  Value evaluate(const Expr& expr);
  Value evaluate_or_none(const ExprPtr& expr);
  Value make_list(const Expr& expr, ListKind kind);
  Value make_dict(const Expr& expr);
  Value compare_chain(const Expr& expr);
  Value concatenate(const Expr& expr);
  Value filter_or_test(const Expr& expr);

  Work work_;
  TaggedText output_;
  TaggedText* out_ = &output_;  // where print writes
  Value captured_;
  std::shared_ptr<Scope> scope_;
  // Macros do not own the scopes around them, which own the macros; here the scopes live on.
  std::vector<std::shared_ptr<Scope>> kept_scopes_;
};

}  // namespace tandem::jinja
