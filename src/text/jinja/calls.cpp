#include <algorithm>

#include "text/jinja/interpreter.h"
#include "text/jinja/operators.h"
#include "text/jinja/print.h"

namespace tandem::jinja {
namespace {

const char* what_of(const Value& callee) {
  return is_undefined(callee) ? "what is undefined" : kind_name(callee);
}

std::string callee_name(const Expr& expr) {
  const Expr& callee = *expr.parts[0];
  return callee.text.empty() ? "of this form" : quote(callee.text);
}

}  // namespace

Arguments Interpreter::arguments_of(const Expr& expr) {
  Arguments arguments;
  for (size_t i = 1; i < expr.parts.size(); ++i) {
    const std::string& name = expr.names[i - 1];
    Value value = evaluate(*expr.parts[i]);
    if (name.empty()) {
      arguments.positional.push_back(std::move(value));
    } else if (name == "*") {
      for (Value& item : items_of(work_, value)) arguments.positional.push_back(std::move(item));
    } else if (name == "**") {
      const Dict* dict = as_dict(value);
      if (!dict) work_.refuse("** of {}", kind_name(value));
      for (const auto& [key, held] : dict->entries) {
        arguments.named.emplace_back(expect_text(work_, key, "**").bytes, held);
      }
    } else {
      arguments.named.emplace_back(name, std::move(value));
    }
  }
  return arguments;
}

// caller: the macro that a call block makes of its body.
Value Interpreter::call(const Expr& expr, CallablePtr caller) {
  const Value callee = evaluate(*expr.parts[0]);
  Arguments arguments = arguments_of(expr);
  work_.line = expr.line;
  if (const Loop* loop = as_loop(callee)) return call_loop(*loop, std::move(arguments));
  const Callable* callable = as_callable(callee);
  if (!callable) {
    work_.refuse("function {} is not known: it is {}", callee_name(expr), what_of(callee));
  }
  if (callable->macro) return call_macro(*callable, std::move(arguments), caller);
  if (caller) work_.refuse("a call block of {}, which is no macro", quote(callable->name));
  return run_builtin(work_, *callable->builtin, callable->self, std::move(arguments));
}

Value Interpreter::call_macro(const Callable& macro, Arguments arguments,
                              const CallablePtr& caller) {
  const std::shared_ptr<Scope> outer = scope_;
  scope_ = std::make_shared<Scope>(Scope{{}, macro.scope.lock()});
  TaggedText text = captured_from([&] {
    bind(macro, std::move(arguments), caller);
    render(macro.macro->arms[0].body);
  });
  scope_ = outer;
  return text_value(std::move(text));
}

// Gives the macro's parameters their values, in its scope.
void Interpreter::bind(const Callable& macro, Arguments arguments, const CallablePtr& caller) {
  const Node& node = *macro.macro;
  const std::vector<Parameter>& parameters = node.parameters;
  std::vector<bool> is_given(parameters.size());
  auto rest = std::make_shared<List>();
  rest->kind = ListKind::tuple;
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    if (i >= parameters.size()) {
      append(work_, *rest, arguments.positional[i]);
      continue;
    }
    scope_->variables[parameters[i].target.name] = arguments.positional[i];
    is_given[i] = true;
  }
  auto named_rest = std::make_shared<Dict>();
  if (caller) {
    arguments.named.emplace_back("caller", caller);
  }
  for (const auto& [name, value] : arguments.named) {
    const auto row = std::ranges::find(
        parameters, name, [](const Parameter& parameter) { return parameter.target.name; });
    const auto i = static_cast<size_t>(row - parameters.begin());
    if (row != parameters.end()) {
      if (is_given[i]) work_.refuse("macro {} with {} given twice", macro.name, quote(name));
      scope_->variables[name] = value;
      is_given[i] = true;
    } else if (name == "caller" && node.reads_caller) {
      scope_->variables["caller"] = value;
    } else {
      insert(work_, *named_rest, markup_value(name), value);
    }
  }
  if (node.reads_varargs) {
    scope_->variables["varargs"] = ListPtr(rest);
  } else if (!rest->items.empty()) {
    work_.refuse("macro {} with {} arguments, expected at most {}", quote(macro.name),
                 arguments.positional.size(), parameters.size());
  }
  if (node.reads_kwargs) {
    scope_->variables["kwargs"] = DictPtr(named_rest);
  } else if (!named_rest->entries.empty()) {
    work_.refuse("macro {} has no parameter {}", quote(macro.name),
                 quote(as_text(named_rest->entries[0].first)->bytes));
  }
  if (!scope_->variables.contains("caller") && node.reads_caller) {
    scope_->variables["caller"] = Undefined();
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (is_given[i]) continue;
    const ExprPtr& fallback = parameters[i].value;
    scope_->variables[parameters[i].target.name] = fallback ? evaluate(*fallback) : Value();
  }
}

// {% for ... recursive %}: the same loop over other items, as text.
Value Interpreter::call_loop(const Loop& loop, Arguments arguments) {
  if (!loop.recursive) work_.refuse("loop(...) in a loop that is not recursive");
  if (arguments.positional.size() != 1 || !arguments.named.empty()) {
    work_.refuse("loop(...) without its one argument");
  }
  const std::shared_ptr<Scope> inner = scope_;
  scope_ = loop.scope.lock();
  if (!scope_) work_.refuse("loop(...) after its loop");
  TaggedText text =
      captured_from([&] { render_loop(*loop.recursive, arguments.positional[0], loop.depth + 1); });
  scope_ = inner;
  return text_value(std::move(text));
}

}  // namespace tandem::jinja
