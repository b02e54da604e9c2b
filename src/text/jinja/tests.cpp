// The tests of chat templates: `x is defined` and so on.
#include "text/jinja/builtins.h"
#include "text/jinja/operators.h"
#include "text/jinja/print.h"

namespace tandem::jinja {
namespace {

template <Operator operation>
Value test_compare(Work& work, const Value& self, const Bound& args) {
  return compare(work, operation, self, args[0]);
}

Value remainder_is(Work& work, const Value& self, const Value& divisor, int64_t wanted) {
  return equal(work, arithmetic(work, Operator::modulo, self, divisor), wanted);
}
Value test_odd(Work& work, const Value& self, const Bound&) {
  return remainder_is(work, self, int64_t{2}, 1);
}
Value test_even(Work& work, const Value& self, const Bound&) {
  return remainder_is(work, self, int64_t{2}, 0);
}
Value test_divisibleby(Work& work, const Value& self, const Bound& args) {
  return remainder_is(work, self, args[0], 0);
}

Value test_defined(Work&, const Value& self, const Bound&) { return !is_undefined(self); }
Value test_undefined(Work&, const Value& self, const Bound&) { return is_undefined(self); }
Value test_none(Work&, const Value& self, const Bound&) { return is_none(self); }
Value test_boolean(Work&, const Value& self, const Bound&) {
  return std::holds_alternative<bool>(self);
}
Value test_true(Work&, const Value& self, const Bound&) {
  const bool* flag = std::get_if<bool>(&self);
  return flag != nullptr && *flag;
}
Value test_false(Work&, const Value& self, const Bound&) {
  const bool* flag = std::get_if<bool>(&self);
  return flag != nullptr && !*flag;
}
Value test_integer(Work&, const Value& self, const Bound&) {
  return std::holds_alternative<int64_t>(self);
}
Value test_float(Work&, const Value& self, const Bound&) {
  return std::holds_alternative<double>(self);
}
Value test_number(Work&, const Value& self, const Bound&) { return as_number(self).has_value(); }
Value test_string(Work&, const Value& self, const Bound&) { return as_text(self) != nullptr; }
Value test_mapping(Work&, const Value& self, const Bound&) { return as_dict(self) != nullptr; }
Value test_sequence(Work&, const Value& self, const Bound&) {
  const List* list = as_list(self);
  const bool is_sequence = list && list->kind < ListKind::keys;
  return is_sequence || as_text(self) || as_dict(self) || is_undefined(self);
}
Value test_iterable(Work&, const Value& self, const Bound&) {
  return as_list(self) || as_text(self) || as_dict(self) || as_loop(self) || is_undefined(self);
}
Value test_callable(Work&, const Value& self, const Bound&) {
  const Loop* loop = as_loop(self);
  return as_callable(self) || is_undefined(self) || loop != nullptr;
}
Value test_escaped(Work&, const Value& self, const Bound&) {
  const TaggedText* text = as_text(self);
  return text != nullptr && text->is_safe;
}
Value test_lower(Work& work, const Value& self, const Bound&) {
  return run_builtin(work, *find_text_method("islower"), to_text(work, self), {});
}
Value test_upper(Work& work, const Value& self, const Bound&) {
  return run_builtin(work, *find_text_method("isupper"), to_text(work, self), {});
}
Value test_filter(Work&, const Value& self, const Bound&) {
  return as_text(self) && find_filter(as_text(self)->bytes);
}
Value test_test(Work&, const Value& self, const Bound&) {
  return as_text(self) && find_test(as_text(self)->bytes);
}

// Python's `is`. Equal integers are the same here; in Python only small ones are sure to be.
Value test_sameas(Work& work, const Value& self, const Bound& args) {
  const Value& other = args[0];
  if (self.index() != other.index()) return false;
  if (const auto* text = std::get_if<TextPtr>(&self)) return *text == std::get<TextPtr>(other);
  if (const auto* list = std::get_if<ListPtr>(&self)) return *list == std::get<ListPtr>(other);
  if (const auto* dict = std::get_if<DictPtr>(&self)) return *dict == std::get<DictPtr>(other);
  return equal(work, self, other);
}

constexpr Builtin kTests[] = {
    {"!=", "_", test_compare<Operator::not_equal>},
    {"<", "_", test_compare<Operator::less>},
    {"<=", "_", test_compare<Operator::less_equal>},
    {"==", "_", test_compare<Operator::equal>},
    {">", "_", test_compare<Operator::greater>},
    {">=", "_", test_compare<Operator::greater_equal>},
    {"boolean", "", test_boolean},
    {"callable", "", test_callable},
    {"defined", "", test_defined},
    {"divisibleby", "num", test_divisibleby},
    {"eq", "_", test_compare<Operator::equal>},
    {"equalto", "_", test_compare<Operator::equal>},
    {"escaped", "", test_escaped},
    {"even", "", test_even},
    {"false", "", test_false},
    {"filter", "", test_filter},
    {"float", "", test_float},
    {"ge", "_", test_compare<Operator::greater_equal>},
    {"greaterthan", "_", test_compare<Operator::greater>},
    {"gt", "_", test_compare<Operator::greater>},
    {"in", "seq", test_compare<Operator::in>},
    {"integer", "", test_integer},
    {"iterable", "", test_iterable},
    {"le", "_", test_compare<Operator::less_equal>},
    {"lessthan", "_", test_compare<Operator::less>},
    {"lower", "", test_lower},
    {"lt", "_", test_compare<Operator::less>},
    {"mapping", "", test_mapping},
    {"ne", "_", test_compare<Operator::not_equal>},
    {"none", "", test_none},
    {"number", "", test_number},
    {"odd", "", test_odd},
    {"sameas", "other", test_sameas},
    {"sequence", "", test_sequence},
    {"string", "", test_string},
    {"test", "", test_test},
    {"true", "", test_true},
    {"undefined", "", test_undefined},
    {"upper", "", test_upper},
};

}  // namespace

const Builtin* find_test(std::string_view name) { return find_in(kTests, name); }

}  // namespace tandem::jinja
