#include "text/jinja/operators.h"

#include <cmath>

#include "text/jinja/format.h"
#include "text/jinja/print.h"
#include "text/jinja/text.h"

namespace tandem::jinja {
namespace {

constexpr const char* kSpellings[] = {"==", "!=", "<", "<=", ">",  ">=", "in", "not in",
                                      "+",  "-",  "*", "/",  "//", "%",  "**"};

[[noreturn]] void refuse(Work& work, Operator operation, const Value& left, const Value& right) {
  work.refuse("{} {} {} is not known", kind_name(left), kSpellings[static_cast<size_t>(operation)],
              kind_name(right));
}

bool is_view(const List& list) { return list.kind >= ListKind::keys; }

bool equal_items(Work& work, const List& left, const List& right) {
  if (&left == &right) return true;
  if (left.kind != right.kind || is_view(left) || left.items.size() != right.items.size()) {
    return false;
  }
  for (size_t i = 0; i < left.items.size(); ++i) {
    if (!equal(work, left.items[i], right.items[i])) return false;
  }
  return true;
}

bool equal_entries(Work& work, const Dict& left, const Dict& right) {
  if (left.entries.size() != right.entries.size()) return false;
  for (const auto& [key, value] : left.entries) {
    const auto found = right.positions.find(*hash_key(key));
    if (found == right.positions.end()) return false;
    if (!equal(work, value, right.entries[found->second].second)) return false;
  }
  return true;
}

Value checked(Work& work, bool fits, int64_t result) {
  if (!fits) work.refuse("an integer that does not fit 64 bits");
  return result;
}

int64_t floor_quotient(int64_t x, int64_t y) {
  const int64_t quotient = x / y;
  return x % y != 0 && (x < 0) != (y < 0) ? quotient - 1 : quotient;
}

double float_modulo(double x, double y) {
  const double rest = std::fmod(x, y);
  if (rest != 0) return (rest < 0) != (y < 0) ? rest + y : rest;
  return std::copysign(0.0, y);
}

// As Python's float_floor_div: exact even where x / y rounds up.
double float_floor_quotient(double x, double y) {
  const double exact = (x - float_modulo(x, y)) / y;
  if (exact == 0) return std::copysign(0.0, x / y);
  const double whole = std::floor(exact);
  return exact - whole > 0.5 ? whole + 1 : whole;
}

Value integer_power(Work& work, int64_t base, int64_t exponent) {
  int64_t result = 1;
  bool fits = true;
  while (fits && exponent > 0) {
    if (exponent & 1) fits = !__builtin_mul_overflow(result, base, &result);
    exponent >>= 1;
    if (exponent > 0) fits = fits && !__builtin_mul_overflow(base, base, &base);
  }
  return checked(work, fits, result);
}

Value integer_arithmetic(Work& work, Operator operation, int64_t x, int64_t y) {
  int64_t result = 0;
  bool fits = true;
  switch (operation) {
    case Operator::add:
      fits = !__builtin_add_overflow(x, y, &result);
      return checked(work, fits, result);
    case Operator::subtract:
      fits = !__builtin_sub_overflow(x, y, &result);
      return checked(work, fits, result);
    case Operator::multiply:
      fits = !__builtin_mul_overflow(x, y, &result);
      return checked(work, fits, result);
    case Operator::floor_divide:
      if (y == -1) return unary(work, Operator::subtract, x);
      return floor_quotient(x, y);
    case Operator::modulo:
      return y == -1 ? int64_t{0} : x - floor_quotient(x, y) * y;
    default:
      if (y < 0) return std::pow(static_cast<double>(x), static_cast<double>(y));
      return integer_power(work, x, y);
  }
}

Value float_arithmetic(Operator operation, double x, double y) {
  switch (operation) {
    case Operator::add:
      return x + y;
    case Operator::subtract:
      return x - y;
    case Operator::multiply:
      return x * y;
    case Operator::divide:
      return x / y;
    case Operator::floor_divide:
      return float_floor_quotient(x, y);
    case Operator::modulo:
      return float_modulo(x, y);
    default:
      return std::pow(x, y);
  }
}

Value repeated(Work& work, const Value& value, int64_t times) {
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  if (const TaggedText* text = as_text(value)) {
    if (text->size() > 0 && count > kMaxWorkBytes / text->size()) {
      work.use_bytes(static_cast<size_t>(kMaxWorkBytes) + 1);
    }
    work.use_bytes(count * text->size());
    TaggedText out;
    out.is_safe = text->is_safe;
    for (size_t i = 0; text->size() > 0 && i < count; ++i) out.append(*text);
    return text_value(std::move(out));
  }
  const List& list = *as_list(value);
  auto out = std::make_shared<List>();
  out->kind = list.kind;
  for (size_t i = 0; !list.items.empty() && i < count; ++i) {
    for (const Value& item : list.items) append(work, *out, item);
  }
  return ListPtr(std::move(out));
}

bool is_plain_list(const Value& value) {
  const List* list = as_list(value);
  return list && (list->kind == ListKind::list || list->kind == ListKind::tuple);
}

Value added_lists(Work& work, const List& left, const List& right) {
  auto both = std::make_shared<List>();
  both->kind = left.kind;
  for (const Value& item : left.items) append(work, *both, item);
  for (const Value& item : right.items) append(work, *both, item);
  return ListPtr(std::move(both));
}

}  // namespace

bool equal(Work& work, const Value& left, const Value& right) {
  work.step();
  const TaggedText *a = as_text(left), *b = as_text(right);
  if (a && b) {
    work.use_bytes(std::min(a->size(), b->size()));
    return a->bytes == b->bytes;
  }
  const std::optional<int64_t> m = as_integer(left), n = as_integer(right);
  if (m && n) return *m == *n;
  const std::optional<double> x = as_number(left), y = as_number(right);
  if (x && y) return *x == *y;
  if (left.index() != right.index()) return false;
  if (as_list(left)) return equal_items(work, *as_list(left), *as_list(right));
  if (as_dict(left)) return equal_entries(work, *as_dict(left), *as_dict(right));
  return hash_key(left) == hash_key(right);  // none, undefined, or the same object
}

std::partial_ordering order(Work& work, const Value& left, const Value& right) {
  const TaggedText *a = as_text(left), *b = as_text(right);
  if (a && b) {
    work.use_bytes(std::min(a->size(), b->size()));
    return a->bytes.compare(b->bytes) <=> 0;  // UTF-8 sorts as its code points do
  }
  const std::optional<int64_t> m = as_integer(left), n = as_integer(right);
  if (m && n) return *m <=> *n;
  const std::optional<double> x = as_number(left), y = as_number(right);
  if (x && y) return *x <=> *y;
  const List *p = as_list(left), *q = as_list(right);
  if (!is_plain_list(left) || !is_plain_list(right) || p->kind != q->kind) {
    work.refuse("ordering {} and {}", kind_name(left), kind_name(right));
  }
  for (size_t i = 0; i < std::min(p->items.size(), q->items.size()); ++i) {
    if (!equal(work, p->items[i], q->items[i])) return order(work, p->items[i], q->items[i]);
  }
  return p->items.size() <=> q->items.size();
}

bool contains(Work& work, const Value& container, const Value& wanted) {
  if (is_undefined(container)) return false;
  if (const Dict* dict = as_dict(container)) {
    const std::optional<std::string> key = hash_key(wanted);
    if (!key) work.refuse("{} as a key", kind_name(wanted));
    return dict->positions.contains(*key);
  }
  if (as_list(container)) {
    for (const Value& item : items_of(work, container)) {
      if (equal(work, item, wanted)) return true;
    }
    return false;
  }
  const TaggedText *hay = as_text(container), *needle = as_text(wanted);
  if (!hay || !needle) work.refuse("{} in {}", kind_name(wanted), kind_name(container));
  work.use_bytes(hay->size());
  return find_bytes(hay->bytes, needle->bytes, 0, hay->size()) != std::string_view::npos;
}

bool compare(Work& work, Operator operation, const Value& left, const Value& right) {
  switch (operation) {
    case Operator::equal:
      return equal(work, left, right);
    case Operator::not_equal:
      return !equal(work, left, right);
    case Operator::less:
      return order(work, left, right) < 0;
    case Operator::less_equal:
      return order(work, left, right) <= 0;
    case Operator::greater:
      return order(work, left, right) > 0;
    case Operator::greater_equal:
      return order(work, left, right) >= 0;
    case Operator::in:
      return contains(work, right, left);
    default:
      return !contains(work, right, left);
  }
}

Value arithmetic(Work& work, Operator operation, const Value& left, const Value& right) {
  const TaggedText* text = as_text(left);
  if (operation == Operator::modulo && text) return percent_format(work, *text, right);
  if (operation == Operator::add && text && as_text(right)) {
    return joined(work, *text, *as_text(right));
  }
  if (operation == Operator::add && is_plain_list(left) && is_plain_list(right) &&
      as_list(left)->kind == as_list(right)->kind) {
    return added_lists(work, *as_list(left), *as_list(right));
  }
  const std::optional<int64_t> m = as_integer(left), n = as_integer(right);
  if (operation == Operator::multiply) {
    if ((text || is_plain_list(left)) && n) return repeated(work, left, *n);
    if ((as_text(right) || is_plain_list(right)) && m) return repeated(work, right, *m);
  }
  const std::optional<double> x = as_number(left), y = as_number(right);
  if (!x || !y) refuse(work, operation, left, right);
  const bool divides = operation == Operator::divide || operation == Operator::floor_divide ||
                       operation == Operator::modulo;
  if (*y == 0 && divides) work.refuse("a division by 0");
  if (operation == Operator::power) {
    if (*x == 0 && *y < 0) work.refuse("0 to a negative power");
    if (*x < 0 && *y != std::trunc(*y)) work.refuse("a complex number is not known");
  }
  if (m && n && operation != Operator::divide) return integer_arithmetic(work, operation, *m, *n);
  return float_arithmetic(operation, *x, *y);
}

Value unary(Work& work, Operator operation, const Value& value) {
  const bool minus = operation == Operator::subtract;
  if (const double* number = std::get_if<double>(&value)) return minus ? -*number : *number;
  const std::optional<int64_t> number = as_integer(value);
  if (!number) work.refuse("{} {}", minus ? "minus" : "plus", kind_name(value));
  if (!minus) return *number;
  return checked(work, *number != INT64_MIN, *number == INT64_MIN ? 0 : -*number);
}

int64_t length_of(Work& work, const Value& value) {
  if (is_undefined(value)) return 0;
  if (const List* list = as_list(value); list && list->kind != ListKind::generator) {
    return static_cast<int64_t>(list->items.size());
  }
  if (const Dict* dict = as_dict(value)) return static_cast<int64_t>(dict->entries.size());
  if (const Loop* loop = as_loop(value)) return static_cast<int64_t>(loop->items.size());
  const TaggedText* text = as_text(value);
  if (!text) work.refuse("the length of {}", as_list(value) ? "a generator" : kind_name(value));
  work.use_bytes(text->size());
  return count_chars(text->bytes);
}

std::vector<Value> items_of(Work& work, const Value& value) {
  std::vector<Value> items;
  if (const List* list = as_list(value)) {
    work.use_bytes(list->items.size() * sizeof(Value));
    const size_t begin = std::min(list->num_taken, list->items.size());
    items.assign(list->items.begin() + static_cast<int64_t>(begin), list->items.end());
    if (list->kind == ListKind::generator) list->num_taken = list->items.size();
  } else if (const Dict* dict = as_dict(value)) {
    work.use_bytes(dict->entries.size() * sizeof(Value));
    for (const auto& entry : dict->entries) items.push_back(entry.first);
  } else if (const TaggedText* text = as_text(value)) {
    for (size_t at = 0; at < text->size();) {
      const size_t bytes = first_char_bytes(text->view(at));
      work.use_bytes(kItemBytes);
      items.push_back(text_value(text->substr(at, bytes)));
      at += bytes;
    }
  } else if (!is_undefined(value)) {
    work.refuse("going through {}", kind_name(value));
  }
  return items;
}

}  // namespace tandem::jinja
