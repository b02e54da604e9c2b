#include "text/jinja/interpreter.h"
#include "text/jinja/operators.h"
#include "text/jinja/print.h"

namespace tandem::jinja {

Interpreter::Interpreter(Variables variables, std::function<std::tm()> clock)
    : scope_(std::make_shared<Scope>()) {
  work_.clock = std::move(clock);
  scope_->variables = std::move(variables);
}

TaggedText Interpreter::run(const Body& body) {
  render(body);
  return std::move(output_);
}

Interpreter::Flow Interpreter::render(const Body& body) {
  const Descent descent(work_);
  for (const Node& node : body) {
    work_.line = node.line;
    work_.step();
    if (const Flow flow = render_node(node); flow != Flow::on) return flow;
  }
  return Flow::on;
}

Interpreter::Flow Interpreter::render_node(const Node& node) {
  switch (node.kind) {
    case NodeKind::text:
      print(*node.constant);
      break;
    case NodeKind::print:
      print(*to_text(work_, evaluate(*node.value)));
      break;
    case NodeKind::branch:
      return render_branch(node);
    case NodeKind::loop:
      return render_loop(node, evaluate(*node.value), 0);
    case NodeKind::assign:
      assign(node.target, evaluate(*node.value));
      break;
    case NodeKind::capture:
    case NodeKind::filter: {
      Flow flow = Flow::on;
      TaggedText text = captured_from([&] { flow = render_scope(node); });
      if (flow != Flow::on) return flow;
      captured_ = text_value(std::move(text));
      Value value = node.value ? evaluate(*node.value) : captured_;
      if (node.kind == NodeKind::filter) {
        print(*to_text(work_, value));
      } else {
        assign(node.target, std::move(value));
      }
      break;
    }
    case NodeKind::macro:
      scope_->variables[node.text] = make_macro(node);
      break;
    case NodeKind::call:
      render_call(node);
      break;
    case NodeKind::scope:
      return render_scope(node);
    case NodeKind::break_loop:
      return Flow::break_loop;
    case NodeKind::continue_loop:
      return Flow::continue_loop;
  }
  return Flow::on;
}

void Interpreter::print(const TaggedText& text) {
  work_.use_bytes(text.size());
  out_->append(text);
  if (out_->size() > static_cast<size_t>(kMaxOutputBytes)) {
    work_.refuse("more than {} bytes of output", kMaxOutputBytes);
  }
}

// What `render_into` prints, instead of printing it.
TaggedText Interpreter::captured_from(const std::function<void()>& render_into) {
  TaggedText text;
  TaggedText* outer = std::exchange(out_, &text);
  render_into();
  out_ = outer;
  return text;
}

std::shared_ptr<Scope> Interpreter::inner_scope() const {
  return std::make_shared<Scope>(Scope{{}, scope_});
}

Interpreter::Flow Interpreter::render_branch(const Node& node) {
  for (const Arm& arm : node.arms) {
    if (!arm.condition || is_true(evaluate(*arm.condition))) return render(arm.body);
  }
  return Flow::on;
}

// The items of the sequence for which the loop's condition is true.
std::vector<Value> Interpreter::loop_items(const Node& node, const Value& sequence) {
  std::vector<Value> items = items_of(work_, sequence);
  if (!node.condition) return items;
  const std::shared_ptr<Scope> outer = scope_;
  std::vector<Value> kept;
  for (Value& item : items) {
    scope_ = std::make_shared<Scope>(Scope{{}, outer});
    assign(node.target, item);
    if (is_true(evaluate(*node.condition))) kept.push_back(std::move(item));
  }
  scope_ = outer;
  return kept;
}

Interpreter::Flow Interpreter::render_loop(const Node& node, const Value& sequence, int depth) {
  auto loop = std::make_shared<Loop>();
  loop->items = loop_items(node, sequence);
  loop->depth = depth;
  loop->recursive = node.is_recursive ? &node : nullptr;
  loop->scope = scope_;
  const std::shared_ptr<Scope> outer = scope_;
  Flow flow = Flow::on;
  for (size_t i = 0; i < loop->items.size() && flow != Flow::break_loop; ++i) {
    work_.line = node.line;
    work_.step();
    loop->index = i;
    // What an iteration sets is gone with it: hence namespaces.
    scope_ = std::make_shared<Scope>(Scope{{}, outer});
    scope_->variables["loop"] = loop;
    assign(node.target, loop->items[i]);
    flow = render(node.arms[0].body);
  }
  scope_ = outer;
  if (!loop->items.empty() || node.arms.size() < 2) return Flow::on;
  scope_ = std::make_shared<Scope>(Scope{{}, outer});
  flow = render(node.arms[1].body);
  scope_ = outer;
  return flow;
}

Interpreter::Flow Interpreter::render_scope(const Node& node) {
  const std::shared_ptr<Scope> outer = scope_;
  std::vector<Value> values;
  for (const Parameter& variable : node.parameters) values.push_back(evaluate(*variable.value));
  scope_ = inner_scope();
  for (size_t i = 0; i < values.size(); ++i) assign(node.parameters[i].target, values[i]);
  const Flow flow = render(node.arms[0].body);
  scope_ = outer;
  return flow;
}

CallablePtr Interpreter::make_macro(const Node& node) {
  auto macro = std::make_shared<Callable>();
  macro->name = node.text;
  macro->macro = &node;
  macro->scope = scope_;
  if (kept_scopes_.empty() || kept_scopes_.back() != scope_) kept_scopes_.push_back(scope_);
  return macro;
}

void Interpreter::render_call(const Node& node) {
  print(*to_text(work_, call(*node.value, make_macro(node))));
}

void Interpreter::assign(const Target& target, Value value) {
  if (!target.parts.empty()) {
    const std::vector<Value> values = items_of(work_, value);
    if (values.size() != target.parts.size()) {
      work_.refuse("{} values for {} names", values.size(), target.parts.size());
    }
    for (size_t i = 0; i < values.size(); ++i) assign(target.parts[i], values[i]);
    return;
  }
  if (target.attribute.empty()) {
    scope_->variables[target.name] = std::move(value);
    return;
  }
  Namespace* names = as_namespace(look_up(target.name));
  if (names == nullptr) work_.refuse("{} is no namespace", quote(target.name));
  if (target.attribute.starts_with('_')) {
    work_.refuse("a namespace with the name {}", quote(target.attribute));
  }
  names->entries[target.attribute] = checked_part(work_, std::move(value));
}

}  // namespace tandem::jinja
