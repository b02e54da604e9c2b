#include "text/jinja/interpreter.h"
#include "text/jinja/members.h"
#include "text/jinja/operators.h"
#include "text/jinja/print.h"

namespace tandem::jinja {

Value Interpreter::look_up(const std::string& name) const {
  for (const Scope* scope = scope_.get(); scope; scope = scope->around.get()) {
    const auto entry = scope->variables.find(name);
    if (entry != scope->variables.end()) return entry->second;
  }
  const Builtin* function = find_function(name);
  if (!function) return {};
  auto callable = std::make_shared<Callable>();
  callable->name = name;
  callable->builtin = function;
  return CallablePtr(std::move(callable));
}

Value Interpreter::evaluate(const Expr& expr) {
  const Descent descent(work_);
  work_.line = expr.line;
  work_.step();
  const auto part = [&](size_t i) { return evaluate(*expr.parts[i]); };
  switch (expr.kind) {
    case ExprKind::constant:
      return expr.value;
    case ExprKind::name:
      return look_up(expr.text);
    case ExprKind::captured:
      return captured_;
    case ExprKind::list:
      return make_list(expr, ListKind::list);
    case ExprKind::tuple:
      return make_list(expr, ListKind::tuple);
    case ExprKind::dict:
      return make_dict(expr);
    case ExprKind::attribute:
      return attribute_of(work_, part(0), expr.text);
    case ExprKind::item: {
      const Value object = part(0);
      return item_of(work_, object, part(1));
    }
    case ExprKind::slice: {
      const Value object = part(0), begin = evaluate_or_none(expr.parts[1]);
      const Value end = evaluate_or_none(expr.parts[2]), step = evaluate_or_none(expr.parts[3]);
      return slice_of(work_, object, begin, end, step);
    }
    case ExprKind::conditional:
      if (is_true(part(1))) return part(0);
      return expr.parts[2] ? part(2) : Value();
    case ExprKind::logical_not:
      return !is_true(part(0));
    case ExprKind::logical_and: {
      Value left = part(0);
      return is_true(left) ? part(1) : left;
    }
    case ExprKind::logical_or: {
      Value left = part(0);
      return is_true(left) ? left : part(1);
    }
    case ExprKind::compare:
      return compare_chain(expr);
    case ExprKind::unary:
      return unary(work_, expr.operators[0], part(0));
    case ExprKind::arithmetic: {
      const Value left = part(0);
      return arithmetic(work_, expr.operators[0], left, part(1));
    }
    case ExprKind::concatenate:
      return concatenate(expr);
    case ExprKind::call:
      return call(expr);
    case ExprKind::filter:
    case ExprKind::test:
      return filter_or_test(expr);
  }
  return {};
}

Value Interpreter::evaluate_or_none(const ExprPtr& expr) {
  return expr ? evaluate(*expr) : Value(None());
}

Value Interpreter::make_list(const Expr& expr, ListKind kind) {
  auto list = std::make_shared<List>();
  list->kind = kind;
  for (const ExprPtr& part : expr.parts) append(work_, *list, evaluate(*part));
  return ListPtr(std::move(list));
}

Value Interpreter::make_dict(const Expr& expr) {
  auto dict = std::make_shared<Dict>();
  for (size_t i = 0; i < expr.parts.size(); i += 2) {
    Value key = evaluate(*expr.parts[i]);
    insert(work_, *dict, std::move(key), evaluate(*expr.parts[i + 1]));
  }
  return DictPtr(std::move(dict));
}

Value Interpreter::compare_chain(const Expr& expr) {
  Value left = evaluate(*expr.parts[0]);
  for (size_t i = 0; i < expr.operators.size(); ++i) {
    Value right = evaluate(*expr.parts[i + 1]);
    if (!compare(work_, expr.operators[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::concatenate(const Expr& expr) {
  TaggedText all;
  for (const ExprPtr& part : expr.parts) {
    const TextPtr text = to_text(work_, evaluate(*part));
    work_.use_bytes(text->size());
    all.append(*text);
  }
  return text_value(std::move(all));
}

Value Interpreter::filter_or_test(const Expr& expr) {
  const char* what = expr.kind == ExprKind::filter ? "filter" : "test";
  if (!expr.builtin) work_.refuse("{} {} is not known", what, quote(expr.text));
  const Value self = evaluate(*expr.parts[0]);
  Arguments arguments = arguments_of(expr);
  work_.line = expr.line;
  return run_builtin(work_, *expr.builtin, self, std::move(arguments));
}

}  // namespace tandem::jinja
