#include "text/jinja_eval.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "text/jinja_builtins.h"
#include "text/jinja_work.h"

namespace tandem::jinja {
namespace {

// What an item of a list counts as text: about the time that it takes.
constexpr size_t kItemBytes = 256;

// Python counts True as 1 and False as 0.
std::optional<int64_t> as_number(const Value& value) {
  if (const int64_t* number = std::get_if<int64_t>(&value)) return *number;
  if (const bool* flag = std::get_if<bool>(&value)) return *flag ? 1 : 0;
  return std::nullopt;
}

class Renderer {
 public:
  explicit Renderer(Variables variables) { scopes_.push_back(std::move(variables)); }

  TaggedText run(const Body& body) {
    render(body);
    return std::move(output_);
  }

 private:
  // --- statements

  void render(const Body& body) {
    for (const Node& node : body) {
      work_.line = node.line;
      work_.step();
      switch (node.kind) {
        case NodeKind::text:
          print(TaggedText(node.name, true));
          break;
        case NodeKind::print:
          print(*to_text(work_, evaluate(*node.value)));
          break;
        case NodeKind::branch:
          render_branch(node);
          break;
        case NodeKind::loop:
          render_loop(node);
          break;
        case NodeKind::assign:
          assign(node);
          break;
      }
    }
  }

  void print(const TaggedText& text) {
    work_.use_bytes(text.size());
    output_.append(text);
    if (output_.size() > static_cast<size_t>(kMaxOutputBytes)) {
      fail_at(work_.line, "more than {} bytes of output", kMaxOutputBytes);
    }
  }

  void render_branch(const Node& node) {
    for (const Arm& arm : node.arms) {
      if (arm.condition && !is_true(evaluate(*arm.condition))) continue;
      return render(arm.body);
    }
  }

  void render_loop(const Node& node) {
    const Value sequence = evaluate(*node.value);
    const List* list = as_list(sequence);
    if (list == nullptr && !is_undefined(sequence)) {
      fail_at(node.line, "a loop over {}, expected a list", kind_name(sequence));
    }
    const size_t length = list ? list->items.size() : 0;
    for (size_t i = 0; i < length; ++i) {
      work_.line = node.line;
      work_.step();
      auto loop = std::make_shared<Dict>();
      loop->entries = {{"index", static_cast<int64_t>(i + 1)},
                       {"index0", static_cast<int64_t>(i)},
                       {"first", i == 0},
                       {"last", i + 1 == length},
                       {"length", static_cast<int64_t>(length)}};
      // What an iteration sets is gone with it: hence namespaces.
      scopes_.push_back({{"loop", std::move(loop)}, {node.name, list->items[i]}});
      render(node.arms[0].body);
      scopes_.pop_back();
    }
    if (length == 0 && node.arms.size() > 1) render(node.arms[1].body);
  }

  void assign(const Node& node) {
    Value value = evaluate(*node.value);
    if (node.attribute.empty()) {
      scopes_.back()[node.name] = std::move(value);
      return;
    }
    Dict* target = as_dict(look_up(node.name));
    if (target == nullptr || !target->is_namespace) {
      fail_at(node.line, "{} is no namespace", quote(node.name));
    }
    target->entries[node.attribute] = nested(std::move(value));
  }

  // --- expressions

  Value look_up(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      if (const auto entry = scope->find(name); entry != scope->end()) return entry->second;
    }
    return {};
  }

  // A value that becomes part of another: no namespace, so that no value can contain itself.
  Value nested(Value value) const {
    const Dict* dict = as_dict(value);
    if (dict && dict->is_namespace) fail_at(work_.line, "a namespace inside a value is not known");
    return value;
  }

  Value evaluate(const Expr& expr) {
    work_.line = expr.line;
    work_.step();
    switch (expr.kind) {
      case ExprKind::string:
        work_.use_bytes(expr.text.size());
        return text_value(TaggedText(expr.text, true));
      case ExprKind::integer:
        return expr.number;
      case ExprKind::boolean:
        return expr.number != 0;
      case ExprKind::none:
        return None();
      case ExprKind::name:
        return look_up(expr.text);
      case ExprKind::list:
        return make_list(expr);
      case ExprKind::attribute:
        return member(evaluate(*expr.parts[0]), expr.text);
      case ExprKind::subscript:
        return subscript(expr);
      case ExprKind::slice:
        return slice(expr);
      case ExprKind::conditional: {
        if (is_true(evaluate(*expr.parts[1]))) return evaluate(*expr.parts[0]);
        return expr.parts[2] ? evaluate(*expr.parts[2]) : Value();
      }
      case ExprKind::negate:
        return negate(expr);
      case ExprKind::logical_not:
        return !is_true(evaluate(*expr.parts[0]));
      case ExprKind::logical_and: {
        Value left = evaluate(*expr.parts[0]);
        return is_true(left) ? evaluate(*expr.parts[1]) : left;
      }
      case ExprKind::logical_or: {
        Value left = evaluate(*expr.parts[0]);
        return is_true(left) ? left : evaluate(*expr.parts[1]);
      }
      case ExprKind::builtin:
        return call(expr);
      case ExprKind::raise_exception:
        fail(ErrorKind::usage, "the model's chat template refuses these messages: {}",
             quote(to_text(work_, evaluate(*expr.parts[0]))->bytes, 400));
      case ExprKind::new_namespace:
        return make_namespace(expr);
      default:
        return binary(expr);
    }
  }

  Value make_list(const Expr& expr) {
    auto list = std::make_shared<List>();
    for (const ExprPtr& part : expr.parts) add_item(*list, evaluate(*part));
    return ListPtr(std::move(list));
  }

  void add_item(List& list, Value item) {
    work_.use_bytes(kItemBytes);
    if (const List* inner = as_list(item)) list.depth = std::max(list.depth, inner->depth + 1);
    if (list.depth > kMaxNesting) fail_at(work_.line, "lists nested deeper than {}", kMaxNesting);
    list.items.push_back(nested(std::move(item)));
  }

  Value make_namespace(const Expr& expr) {
    auto dict = std::make_shared<Dict>();
    dict->is_namespace = true;
    for (size_t i = 0; i < expr.parts.size(); ++i) {
      dict->entries[expr.names[i]] = nested(evaluate(*expr.parts[i]));
    }
    return dict;
  }

  Value member(const Value& object, const std::string& name) const {
    if (is_undefined(object)) fail_at(work_.line, "{} of what is undefined", quote(name));
    const Dict* dict = as_dict(object);
    if (dict == nullptr) return {};
    const auto entry = dict->entries.find(name);
    return entry == dict->entries.end() ? Value() : entry->second;
  }

  Value subscript(const Expr& expr) {
    const Value object = evaluate(*expr.parts[0]), key = evaluate(*expr.parts[1]);
    work_.line = expr.line;
    if (const TaggedText* name = as_text(key)) return member(object, name->bytes);
    if (is_undefined(object)) fail_at(expr.line, "an item of what is undefined");
    const std::optional<int64_t> index = as_number(key);
    if (!index) fail_at(expr.line, "a subscript that is {}", kind_name(key));
    if (!as_list(object) && !as_text(object)) return {};
    return item_at(work_, object, *index);
  }

  // A bound of a slice of `length` items, as Python clamps it.
  int64_t bound(const ExprPtr& part, int64_t length, int64_t absent) {
    if (!part) return absent;
    const Value value = evaluate(*part);
    if (is_none(value)) return absent;
    const std::optional<int64_t> number = as_number(value);
    if (!number) fail_at(part->line, "a slice bound that is {}", kind_name(value));
    return std::clamp<int64_t>(*number < 0 ? *number + length : *number, 0, length);
  }

  Value slice(const Expr& expr) {
    const Value object = evaluate(*expr.parts[0]);
    const List* list = as_list(object);
    const TaggedText* text = as_text(object);
    if (!list && !text) fail_at(expr.line, "a slice of {}", kind_name(object));
    if (text) work_.use_bytes(text->size());
    const int64_t length =
        list ? static_cast<int64_t>(list->items.size()) : count_chars(text->bytes);
    const int64_t begin = bound(expr.parts[1], length, 0);
    const int64_t end = std::max(begin, bound(expr.parts[2], length, length));
    work_.line = expr.line;
    if (list) {
      auto part = std::make_shared<List>();
      for (int64_t i = begin; i < end; ++i) add_item(*part, list->items[static_cast<size_t>(i)]);
      return ListPtr(std::move(part));
    }
    size_t at = 0, first_byte = 0;
    for (int64_t i = 0; i < end; ++i) {
      if (i == begin) first_byte = at;
      at += first_char_bytes(std::string_view(text->bytes).substr(at));
    }
    if (begin == end) first_byte = at;
    work_.use_bytes(at - first_byte);
    return text_value(text->substr(first_byte, at - first_byte));
  }

  Value negate(const Expr& expr) {
    const Value value = evaluate(*expr.parts[0]);
    const std::optional<int64_t> number = as_number(value);
    if (!number || *number == INT64_MIN) fail_at(expr.line, "minus {}", kind_name(value));
    return -*number;
  }

  Value call(const Expr& expr) {
    std::vector<Value> values;
    for (const ExprPtr& part : expr.parts) values.push_back(evaluate(*part));
    work_.line = expr.line;
    return expr.builtin->run(work_, values[0], std::span(values).subspan(1));
  }

  Value binary(const Expr& expr) {
    const Value left = evaluate(*expr.parts[0]), right = evaluate(*expr.parts[1]);
    work_.line = expr.line;
    switch (expr.kind) {
      case ExprKind::equal:
        return equal(left, right);
      case ExprKind::not_equal:
        return !equal(left, right);
      case ExprKind::less:
        return order(left, right) < 0;
      case ExprKind::less_equal:
        return order(left, right) <= 0;
      case ExprKind::greater:
        return order(left, right) > 0;
      case ExprKind::greater_equal:
        return order(left, right) >= 0;
      case ExprKind::in:
        return contains(right, left);
      case ExprKind::not_in:
        return !contains(right, left);
      case ExprKind::concatenate:
        return joined(*to_text(work_, left), *to_text(work_, right));
      case ExprKind::add:
        return add(left, right);
      default:
        return arithmetic(expr.kind, left, right);
    }
  }

  bool equal(const Value& left, const Value& right) {
    const TaggedText *a = as_text(left), *b = as_text(right);
    if (a && b) {
      work_.use_bytes(std::min(a->size(), b->size()));
      return a->bytes == b->bytes;
    }
    const std::optional<int64_t> x = as_number(left), y = as_number(right);
    if (x && y) return *x == *y;
    if (left.index() != right.index()) return false;
    if (as_list(left) || as_dict(left)) {
      fail_at(work_.line, "comparing {} with {} is not known", kind_name(left), kind_name(right));
    }
    return true;  // none and none, undefined and undefined
  }

  int order(const Value& left, const Value& right) {
    const TaggedText *a = as_text(left), *b = as_text(right);
    if (a && b) {
      work_.use_bytes(std::min(a->size(), b->size()));
      return a->bytes.compare(b->bytes);  // UTF-8 sorts as its code points do
    }
    const std::optional<int64_t> x = as_number(left), y = as_number(right);
    if (!x || !y) fail_at(work_.line, "ordering {} and {}", kind_name(left), kind_name(right));
    return *x < *y ? -1 : *x > *y;
  }

  bool contains(const Value& container, const Value& wanted) {
    if (is_undefined(container)) return false;
    if (const List* list = as_list(container)) {
      for (const Value& item : list->items) {
        work_.step();
        if (equal(item, wanted)) return true;
      }
      return false;
    }
    const TaggedText* needle = as_text(wanted);
    if (const Dict* dict = as_dict(container); dict && needle) {
      return dict->entries.contains(needle->bytes);
    }
    const TaggedText* hay = as_text(container);
    if (!hay || !needle) fail_at(work_.line, "{} in {}", kind_name(wanted), kind_name(container));
    work_.use_bytes(hay->size());
    // memmem is linear; std::string::find is not.
    return memmem(hay->bytes.data(), hay->size(), needle->bytes.data(), needle->size()) != nullptr;
  }

  Value joined(const TaggedText& left, const TaggedText& right) {
    work_.use_bytes(left.size() + right.size());
    TaggedText both = left;
    both.append(right);
    return text_value(std::move(both));
  }

  Value add(const Value& left, const Value& right) {
    if (as_text(left) && as_text(right)) return joined(*as_text(left), *as_text(right));
    if (!as_list(left) || !as_list(right)) return arithmetic(ExprKind::add, left, right);
    auto both = std::make_shared<List>();
    for (const Value& item : as_list(left)->items) add_item(*both, item);
    for (const Value& item : as_list(right)->items) add_item(*both, item);
    return ListPtr(std::move(both));
  }

  Value arithmetic(ExprKind kind, const Value& left, const Value& right) {
    const std::optional<int64_t> x = as_number(left), y = as_number(right);
    if (!x || !y) {
      const char* op = kind == ExprKind::add        ? "+"
                       : kind == ExprKind::subtract ? "-"
                       : kind == ExprKind::multiply ? "*"
                                                    : "%";
      fail_at(work_.line, "{} {} {} is not known", kind_name(left), op, kind_name(right));
    }
    int64_t result = 0;
    bool fits = true;
    if (kind == ExprKind::add) {
      fits = !__builtin_add_overflow(*x, *y, &result);
    } else if (kind == ExprKind::subtract) {
      fits = !__builtin_sub_overflow(*x, *y, &result);
    } else if (kind == ExprKind::multiply) {
      fits = !__builtin_mul_overflow(*x, *y, &result);
    } else {
      if (*y == 0) fail_at(work_.line, "a remainder of a division by 0");
      result = *y == -1 ? 0 : *x % *y;
      if (result != 0 && (result < 0) != (*y < 0)) result += *y;  // Python: the divisor's sign
    }
    if (!fits) fail_at(work_.line, "an integer that does not fit 64 bits");
    return result;
  }

  Work work_;
  TaggedText output_;
  std::vector<Variables> scopes_;
};

}  // namespace

TaggedText render(const Body& body, Variables variables) {
  return Renderer(std::move(variables)).run(body);
}

}  // namespace tandem::jinja
