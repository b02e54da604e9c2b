// The filters of single values: Jinja's, except those that make links, markup or random choices.
#include <charconv>
#include <cmath>

#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/jinja/members.h"
#include "text/jinja/operators.h"
#include "text/jinja/print.h"
#include "text/jinja/text.h"

namespace tandem::jinja {
namespace {

// The method of the same name, on the value as text.
Value method_of_text(Work& work, const char* name, const Value& self, Arguments arguments) {
  return run_builtin(work, *find_text_method(name), to_text(work, self), std::move(arguments));
}

Value filter_trim(Work& work, const Value& self, const Bound& args) {
  Arguments chars;
  if (args.has(0)) chars.positional.push_back(args[0]);
  return method_of_text(work, "strip", self, std::move(chars));
}
Value filter_upper(Work& work, const Value& self, const Bound&) {
  return method_of_text(work, "upper", self, {});
}
Value filter_lower(Work& work, const Value& self, const Bound&) {
  return method_of_text(work, "lower", self, {});
}
Value filter_capitalize(Work& work, const Value& self, const Bound&) {
  return method_of_text(work, "capitalize", self, {});
}
Value filter_center(Work& work, const Value& self, const Bound& args) {
  return method_of_text(work, "center", self, {{args.get(0, int64_t{80})}, {}});
}

// Unlike the method: words end at white space and -({[< only.
Value filter_title(Work& work, const Value& self, const Bound&) {
  const TextPtr text = to_text(work, self);
  TaggedText out;
  out.is_safe = text->is_safe;
  const auto divides = [&](size_t at, size_t bytes) {
    const std::string_view one = text->view(at).substr(0, bytes);
    return leading_space_bytes(one) > 0 || std::string_view("-({[<").find(one) != std::string::npos;
  };
  for (size_t at = 0; at < text->size();) {
    size_t bytes = first_char_bytes(text->view(at));
    const bool divider = divides(at, bytes);
    size_t end = at + bytes;
    while (end < text->size() && divides(end, first_char_bytes(text->view(end))) == divider) {
      end += first_char_bytes(text->view(end));
    }
    out.append(with_case(work, text->substr(at, bytes), LetterCase::upper));
    out.append(with_case(work, text->substr(at + bytes, end - at - bytes), LetterCase::lower));
    at = end;
  }
  return text_value(std::move(out));
}

Value filter_default(Work&, const Value& self, const Bound& args) {
  const bool replaces = is_undefined(self) || (args.flag(1) && !is_true(self));
  return replaces ? args.get(0, markup_value("")) : self;
}

Value filter_string(Work& work, const Value& self, const Bound&) { return to_text(work, self); }

Value filter_safe(Work& work, const Value& self, const Bound&) {
  TaggedText text = *to_text(work, self);
  text.is_safe = true;
  return text_value(std::move(text));
}
Value filter_escape(Work& work, const Value& self, const Bound&) {
  const TextPtr text = to_text(work, self);
  return text->is_safe ? Value(text) : text_value(html_escaped(work, *text));
}

Value filter_replace(Work& work, const Value& self, const Bound& args) {
  TaggedText text = *to_text(work, self);
  text.is_safe = false;
  const bool has_count = args.has(2) && !is_none(args[2]);
  return method_of_text(
      work, "replace", text_value(std::move(text)),
      {{to_text(work, args[0]), to_text(work, args[1]), has_count ? args[2] : Value(int64_t{-1})},
       {}});
}

Value filter_indent(Work& work, const Value& self, const Bound& args) {
  const TaggedText& text = expect_text(work, self, "indent");
  TaggedText indent;
  const Value width = args.get(0, int64_t{4});
  if (as_text(width)) {
    indent = *as_text(width);
  } else {
    const int64_t spaces = std::max<int64_t>(expect_integer(work, width, "indent"), 0);
    if (spaces > kMaxWorkBytes) work.refuse("an indent of {}", spaces);
    indent = TaggedText(std::string(static_cast<size_t>(spaces), ' '), true);
  }
  const Value lines = method_of_text(work, "splitlines", self, {});
  std::vector<Value> items = as_list(lines)->items;
  // Jinja adds a line end before it splits, so what ends in one has an empty line after it.
  const size_t last = text.size() == 0 ? 0 : text.size() - last_char_bytes(text.bytes);
  if (text.size() == 0 || is_line_end(text.view(last))) items.push_back(text_value(TaggedText()));
  TaggedText out;
  out.is_safe = text.is_safe;
  for (size_t i = 0; i < items.size(); ++i) {
    const TaggedText& line = *as_text(items[i]);
    const bool indents = i == 0 ? args.flag(1) : args.flag(2) || line.size() > 0;
    work.use_bytes(line.size() + indent.size() + 1);
    if (i > 0) out.append("\n", true);
    if (indents) out.append(indent);
    out.append(line);
  }
  return text_value(std::move(out));
}

Value filter_truncate(Work& work, const Value& self, const Bound& args) {
  const TaggedText& text = expect_text(work, self, "truncate");
  const int64_t length = expect_integer(work, args.get(0, int64_t{255}), "truncate");
  const Value end = args.get(2, markup_value("..."));
  const bool has_leeway = args.has(3) && !is_none(args[3]);
  const int64_t leeway = has_leeway ? expect_integer(work, args[3], "truncate") : 5;
  const int64_t kept =
      std::max<int64_t>(length, -1) - count_chars(expect_text(work, end, "truncate").bytes);
  if (kept < 0 || leeway < 0) work.refuse("truncate to {} with a leeway of {}", length, leeway);
  if (count_chars(text.bytes) - length <= leeway) return self;
  const Value head = slice_of(work, self, None(), kept, None());
  if (args.flag(1)) return joined(work, *as_text(head), *as_text(end));
  const Value words =
      method_of_text(work, "rsplit", head, {{markup_value(" "), Value(int64_t{1})}, {}});
  return joined(work, *as_text(as_list(words)->items[0]), *as_text(end));
}

Value filter_wordcount(Work& work, const Value& self, const Bound&) {
  const TextPtr text = to_text(work, self);
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < text->size();) {
    const size_t bytes = first_char_bytes(text->view(at));
    const Value one = part_of(work, *text, at, at + bytes);
    const bool of_word =
        text->bytes[at] == '_' || is_true(method_of_text(work, "isalnum", one, {}));
    if (of_word && !inside) ++words;
    inside = of_word;
    at += bytes;
  }
  return words;
}

Value filter_format(Work& work, const Value& self, const Bound& args) {
  if (!args.named.empty() && !args.values.empty()) {
    work.refuse("format with both kinds of arguments");
  }
  auto named = std::make_shared<Dict>();
  for (const auto& [name, value] : args.named) insert(work, *named, markup_value(name), value);
  auto tuple = std::make_shared<List>();
  tuple->kind = ListKind::tuple;
  for (const auto& value : args.values) append(work, *tuple, *value);
  const Value values = args.named.empty() ? Value(ListPtr(tuple)) : Value(DictPtr(named));
  return percent_format(work, *to_text(work, self), values);
}

Value filter_tojson(Work& work, const Value& self, const Bound& args) {
  JsonStyle style;
  style.ascii_only = args.flag(0);
  style.sorts_keys = args.flag(3);
  if (args.has(1) && !is_none(args[1])) {
    const std::optional<int64_t> spaces = as_integer(args[1]);
    if (spaces.value_or(0) > kMaxWorkBytes) work.refuse("an indent of {}", *spaces);
    const auto count = static_cast<size_t>(std::max<int64_t>(spaces.value_or(0), 0));
    work.use_bytes(count);
    style.indent = spaces ? TaggedText(std::string(count, ' '), true)
                          : expect_text(work, args[1], "an indent");
    style.item_separator = TaggedText(",", true);
  }
  if (args.has(2) && !is_none(args[2])) {
    const std::vector<Value> separators = items_of(work, args[2]);
    if (separators.size() != 2) work.refuse("tojson with {} separators", separators.size());
    style.item_separator = expect_text(work, separators[0], "a separator");
    style.key_separator = expect_text(work, separators[1], "a separator");
  }
  return to_json(work, self, style);
}

// --- numbers

// Python's int(text, base) and float(text), without the underscores they allow.
std::optional<int64_t> parsed_integer(Work& work, std::string_view text, int64_t base) {
  text.remove_prefix(leading_space_bytes(text));
  text.remove_suffix(trailing_space_bytes(text));
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  const auto takes = [&](std::string_view small, std::string_view large, int64_t of_base) {
    const bool fits = base == of_base && (text.starts_with(small) || text.starts_with(large));
    if (fits) text.remove_prefix(2);
  };
  takes("0x", "0X", 16);
  takes("0o", "0O", 8);
  takes("0b", "0B", 2);
  if (text.empty() || text[0] == '-') return std::nullopt;
  int64_t number = 0;
  const char* limit = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), limit, number, static_cast<int>(base));
  if (end != limit) return std::nullopt;
  if (error != std::errc()) work.refuse("an integer that does not fit 64 bits");
  return negative ? -number : number;
}

std::optional<double> parsed_float(std::string_view text) {
  text.remove_prefix(leading_space_bytes(text));
  text.remove_suffix(trailing_space_bytes(text));
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  double number = 0;
  const char* limit = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), limit, number);
  if (end != limit || text.empty() || error == std::errc::invalid_argument) return std::nullopt;
  if (error == std::errc::result_out_of_range) {
    return text[0] == '-' ? -HUGE_VAL : HUGE_VAL;
  }
  return number;
}

Value filter_int(Work& work, const Value& self, const Bound& args) {
  const int64_t base = expect_integer(work, args.get(1, int64_t{10}), "a base");
  if (is_undefined(self)) work.refuse("int of what is undefined");
  if (base < 2 || base > 36) work.refuse("base {} of int is not known", base);
  if (const std::optional<int64_t> number = as_integer(self)) return *number;
  std::optional<double> real = as_number(self);
  if (const TaggedText* text = as_text(self)) {
    if (const auto number = parsed_integer(work, text->bytes, base)) return *number;
    real = parsed_float(text->bytes);
  }
  if (!real || !std::isfinite(*real)) return args.get(0, int64_t{0});
  if (!(std::abs(*real) < 0x1p63)) work.refuse("an integer that does not fit 64 bits");
  return static_cast<int64_t>(*real);
}

Value filter_float(Work& work, const Value& self, const Bound& args) {
  if (is_undefined(self)) work.refuse("float of what is undefined");
  std::optional<double> real = as_number(self);
  if (const TaggedText* text = as_text(self)) real = parsed_float(text->bytes);
  return real ? Value(*real) : args.get(0, 0.0);
}

Value filter_abs(Work& work, const Value& self, const Bound&) {
  const std::optional<double> number = as_number(self);
  if (!number) work.refuse("abs of {}", kind_name(self));
  return unary(work, std::signbit(*number) ? Operator::subtract : Operator::add, self);
}

Value filter_round(Work& work, const Value& self, const Bound& args) {
  const std::optional<double> number = as_number(self);
  if (!number) work.refuse("round of {}", kind_name(self));
  const int64_t digits = expect_integer(work, args.get(0, int64_t{0}), "round");
  const Value method = args.get(1, markup_value("common"));
  const std::string& name = expect_text(work, method, "round").bytes;
  const double scale = std::pow(10.0, static_cast<double>(digits));
  if (name == "ceil") return std::ceil(*number * scale) / scale;
  if (name == "floor") return std::floor(*number * scale) / scale;
  if (name != "common") work.refuse("round with method {}", quote(name));
  if (as_integer(self)) {
    if (digits < 0) work.refuse("round of an integer to {} digits is not known", digits);
    return *as_integer(self);
  }
  if (digits < 0 || digits > 22) work.refuse("round to {} digits is not known", digits);
  // The decimal spelling is rounded, half to even: what Python does.
  return parsed_float(fmt::format("{:.{}f}", *number, digits)).value_or(*number);
}

Value filter_attr(Work& work, const Value& self, const Bound& args) {
  const std::string& name = expect_text(work, args[0], "attr").bytes;
  const Dict* dict = as_dict(self);
  if (dict && !find_dict_method(name)) return Value();
  return attribute_of(work, self, name);
}

constexpr Builtin kFilters[] = {
    {"abs", "", filter_abs},
    {"attr", "name", filter_attr},
    {"capitalize", "", filter_capitalize},
    {"center", "width?", filter_center},
    {"d", "default_value? boolean?", filter_default},
    {"default", "default_value? boolean?", filter_default},
    {"e", "", filter_escape},
    {"escape", "", filter_escape},
    {"float", "default?", filter_float},
    {"format", "* **", filter_format},
    {"indent", "width? first? blank?", filter_indent},
    {"int", "default? base?", filter_int},
    {"lower", "", filter_lower},
    {"replace", "old new count?", filter_replace},
    {"round", "precision? method?", filter_round},
    {"safe", "", filter_safe},
    {"string", "", filter_string},
    {"title", "", filter_title},
    {"tojson", "ensure_ascii? indent? separators? sort_keys?", filter_tojson},
    {"trim", "chars?", filter_trim},
    {"truncate", "length? killwords? end? leeway?", filter_truncate},
    {"upper", "", filter_upper},
    {"wordcount", "", filter_wordcount},
};

}  // namespace

const Builtin* find_filter(std::string_view name) {
  const Builtin* filter = find_list_filter(name);
  return filter ? filter : find_in(kFilters, name);
}

}  // namespace tandem::jinja
