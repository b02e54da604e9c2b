#include "text/jinja_format.h"

#include <charconv>
#include <cmath>

#include "text/jinja_members.h"
#include "text/jinja_operators.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"

namespace tandem::jinja {
namespace {

constexpr int64_t kMaxWidth = 1'000'000;

// What stands between the sign that begins a directive and its type.
struct Spec {
  char fill = ' ', align = 0, sign = 0;  // align: one of < > ^ =, 0: as the type wants
  bool alternate = false, commas = false;
  int64_t width = 0, precision = -1;
  char type = 0;
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Digits at text[at...]; -1 when there are none.
int64_t take_number(Work& work, std::string_view text, size_t& at) {
  if (at >= text.size() || !is_digit(text[at])) return -1;
  int64_t number = 0;
  for (; at < text.size() && is_digit(text[at]); ++at) {
    number = number * 10 + (text[at] - '0');
    if (number > kMaxWidth) work.refuse("a format with a width above {}", kMaxWidth);
  }
  return number;
}

std::string with_commas(std::string digits) {
  const size_t end = std::min(digits.find_first_of(".e"), digits.size());
  for (size_t at = end; at > 3; at -= 3)
    digits.insert(digits.begin() + static_cast<int64_t>(at - 3), ',');
  return digits;
}

std::string printf_float(const Spec& spec, double number) {
  const int precision = static_cast<int>(spec.precision < 0 ? 6 : spec.precision);
  if (!std::isfinite(number)) return std::isnan(number) ? "nan" : "inf";
  switch (spec.type) {
    case 'f':
    case 'F':
      return fmt::format("{:.{}f}", number, precision);
    case 'e':
      return fmt::format("{:.{}e}", number, precision);
    case 'E':
      return fmt::format("{:.{}E}", number, precision);
    case 'g':
      return fmt::format("{:.{}g}", number, precision);
    default:
      return fmt::format("{:.{}G}", number, precision);
  }
}

// The digits of a number without its sign.
std::string digits_of(Work& work, const Spec& spec, const Value& value) {
  constexpr std::string_view kFloatTypes = "fFeEgG%";
  const std::optional<double> number = as_number(value);
  if (!number) work.refuse("format {} of {}", quote({&spec.type, 1}), kind_name(value));
  if (spec.type == '%') {
    Spec plain = spec;
    plain.type = 'f';
    return fmt::format("{}%", printf_float(plain, std::abs(*number) * 100));
  }
  if (kFloatTypes.find(spec.type) != std::string_view::npos) {
    return printf_float(spec, std::abs(*number));
  }
  const std::optional<int64_t> whole = as_integer(value);
  if (!whole) work.refuse("format {} of a float", quote({&spec.type, 1}));
  const uint64_t size =
      *whole < 0 ? 0 - static_cast<uint64_t>(*whole) : static_cast<uint64_t>(*whole);
  const char* prefix = spec.alternate ? "0" : "";
  switch (spec.type) {
    case 'x':
      return fmt::format("{}{:x}", spec.alternate ? "0x" : "", size);
    case 'X':
      return fmt::format("{}{:X}", spec.alternate ? "0X" : "", size);
    case 'o':
      return fmt::format("{}{}{:o}", prefix, spec.alternate ? "o" : "", size);
    case 'b':
      return fmt::format("{}{}{:b}", prefix, spec.alternate ? "b" : "", size);
    case 'd':
    case 'i':
    case 'u':
      return std::to_string(size);
    default:
      work.refuse("format {} is not known", quote({&spec.type, 1}));
  }
}

void pad(Work& work, const Spec& spec, char align, std::string_view sign, TaggedText body,
         TaggedText& out) {
  const int64_t used = count_chars(body.bytes) + static_cast<int64_t>(sign.size());
  const auto missing = static_cast<size_t>(std::max<int64_t>(spec.width - used, 0));
  const size_t left = align == '>' || align == '=' ? missing : align == '^' ? missing / 2 : 0;
  work.use_bytes(body.size() + missing + sign.size());
  if (align == '=') out.append(sign, true);
  out.append(std::string(left, spec.fill), true);
  if (align != '=') out.append(sign, true);
  out.append(body);
  out.append(std::string(missing - left, spec.fill), true);
}

void append_number(Work& work, const Spec& spec, const Value& value, TaggedText& out) {
  std::string digits = digits_of(work, spec, value);
  if (spec.commas) digits = with_commas(std::move(digits));
  const bool negative = std::signbit(*as_number(value));
  const std::string_view sign = negative ? "-" : spec.sign ? std::string_view(&spec.sign, 1) : "";
  pad(work, spec, spec.align ? spec.align : '>', sign, TaggedText(digits, true), out);
}

void append_string(Work& work, const Spec& spec, char align, const TaggedText& text,
                   TaggedText& out) {
  TaggedText body = text;
  if (spec.precision >= 0 && spec.precision < count_chars(text.bytes)) {
    body = text.substr(0, char_starts(text.bytes)[static_cast<size_t>(spec.precision)]);
  }
  pad(work, spec, align, "", std::move(body), out);
}

// --- "%5.1f %s" % values

class PercentFormat {
 public:
  PercentFormat(Work& work, const TaggedText& format, const Value& values)
      : work_(work), format_(format), values_(values) {
    const List* list = as_list(values);
    if (list && list->kind == ListKind::tuple) tuple_ = list;
  }

  Value run() {
    out_.is_safe = format_.is_safe;
    const std::string_view text = format_.bytes;
    for (size_t at = 0; at < text.size();) {
      const size_t sign = std::min(text.find('%', at), text.size());
      out_.append(format_.substr(at, sign - at));
      at = sign;
      if (at < text.size()) directive(++at);
    }
    work_.use_bytes(out_.size());
    const bool uses_all = tuple_ ? num_used_ == tuple_->items.size() : num_used_ == 1;
    if (!uses_all && !as_dict(values_) && !(as_list(values_) && !tuple_)) {
      work_.refuse("a % format that leaves values over");
    }
    return text_value(std::move(out_));
  }

 private:
  Value next_value() {
    if (!tuple_ && num_used_ == 0) return ++num_used_, values_;
    if (!tuple_ || num_used_ >= tuple_->items.size())
      work_.refuse("a % format with too few values");
    return tuple_->items[num_used_++];
  }

  // %(name): the value of the dict under that name.
  Value named_value(size_t& at) {
    const size_t end = format_.bytes.find(')', at);
    if (end == std::string::npos) work_.refuse("a % format with an open name");
    const std::string name = format_.bytes.substr(at, end - at);
    at = end + 1;
    const Dict* dict = as_dict(values_);
    const Value* value = dict ? dict->find(name) : nullptr;
    if (!value) work_.refuse("a % format without a value for {}", quote(name));
    return *value;
  }

  void directive(size_t& at) {
    const std::string_view text = format_.bytes;
    Spec spec;
    std::optional<Value> named;
    if (at < text.size() && text[at] == '(') named = named_value(++at);
    for (; at < text.size(); ++at) {
      if (text[at] == '-') {
        spec.align = '<';
      } else if (text[at] == '0' && spec.align == 0) {
        spec.fill = '0';
      } else if (text[at] == '+' || (text[at] == ' ' && spec.sign != '+')) {
        spec.sign = text[at];
      } else if (text[at] == '#') {
        spec.alternate = true;
      } else {
        break;
      }
    }
    spec.width = std::max<int64_t>(take_number(work_, text, at), 0);
    if (at < text.size() && text[at] == '.') {
      spec.precision = std::max<int64_t>(take_number(work_, text, ++at), 0);
    }
    if (at >= text.size()) work_.refuse("a % format that ends within a directive");
    spec.type = text[at++];
    if (spec.type == '%') return out_.append("%", true);
    convert(spec, named ? *named : next_value());
  }

  void convert(Spec& spec, const Value& value) {
    if (spec.type == 's' || spec.type == 'r') {
      spec.fill = ' ';
      TextPtr text = spec.type == 's' ? to_text(work_, value) : to_repr(work_, value);
      if (out_.is_safe && !text->is_safe) {
        text = std::make_shared<const TaggedText>(html_escaped(work_, *text));
      }
      return append_string(work_, spec, spec.align ? spec.align : '>', *text, out_);
    }
    Value number = value;
    const bool whole = std::string_view("diu").find(spec.type) != std::string_view::npos;
    if (const double* real = std::get_if<double>(&value); real && whole) {
      if (!(std::abs(*real) < 0x1p63)) work_.refuse("an integer that does not fit 64 bits");
      number = static_cast<int64_t>(*real);
    }
    if (spec.fill == '0') spec.align = spec.align == '<' ? '<' : '=';
    if (spec.align == '<') spec.fill = ' ';
    if (spec.type == '%' || spec.type == 'b') work_.refuse("a % format of unknown type");
    append_number(work_, spec, number, out_);
  }

  Work& work_;
  const TaggedText& format_;
  const Value& values_;
  const List* tuple_ = nullptr;
  size_t num_used_ = 0;
  TaggedText out_;
};

// --- "{0.name!r:>5}".format(values)

Spec parse_spec(Work& work, std::string_view text) {
  Spec spec;
  size_t at = 0;
  const auto is_align = [&](size_t i) {
    return i < text.size() && std::string_view("<>^=").find(text[i]) != std::string_view::npos;
  };
  if (is_align(1)) {
    spec.fill = text[0];
    spec.align = text[1];
    at = 2;
  } else if (is_align(0)) {
    spec.align = text[0];
    at = 1;
  }
  const auto take = [&](char c) { return at < text.size() && text[at] == c && (++at, true); };
  if (take('+'))
    spec.sign = '+';
  else if (take(' '))
    spec.sign = ' ';
  else
    take('-');
  spec.alternate = take('#');
  if (at < text.size() && text[at] == '0' && spec.align == 0) {
    spec.fill = '0';
    spec.align = '=';
    ++at;
  }
  spec.width = std::max<int64_t>(take_number(work, text, at), 0);
  spec.commas = take(',');
  if (take('.')) {
    spec.precision = take_number(work, text, at);
    if (spec.precision < 0) work.refuse("format spec {} is not known", quote(text));
  }
  if (at < text.size()) spec.type = text[at++];
  if (at < text.size()) work.refuse("format spec {} is not known", quote(text));
  return spec;
}

class BraceFormat {
 public:
  BraceFormat(Work& work, const TaggedText& format, const Bound& args)
      : work_(work), format_(format), args_(args) {}

  Value run() {
    const std::string_view text = format_.bytes;
    out_.is_safe = format_.is_safe;
    for (size_t at = 0; at < text.size();) {
      const char c = text[at];
      if (c != '{' && c != '}') {
        const size_t end = std::min(text.find_first_of("{}", at), text.size());
        out_.append(format_.substr(at, end - at));
        at = end;
      } else if (at + 1 < text.size() && text[at + 1] == c) {
        out_.append(format_.substr(at, 1));
        at += 2;
      } else if (c == '}') {
        work_.refuse("a format with a single '}}'");
      } else {
        const size_t end = text.find('}', at);
        if (end == std::string::npos) work_.refuse("a format with an open '{{'");
        field(text.substr(at + 1, end - at - 1));
        at = end + 1;
      }
    }
    work_.use_bytes(out_.size());
    return text_value(std::move(out_));
  }

 private:
  void field(std::string_view text) {
    if (text.find('{') != std::string_view::npos)
      work_.refuse("nested format fields are not known");
    const size_t colon = std::min(text.find(':'), text.size());
    std::string_view path = text.substr(0, colon);
    const Spec spec = parse_spec(work_, text.substr(std::min(colon + 1, text.size())));
    char conversion = 0;
    if (path.size() >= 2 && path[path.size() - 2] == '!') {
      conversion = path.back();
      path.remove_suffix(2);
    }
    Value value = look_up(path);
    if (conversion == 's')
      value = to_text(work_, value);
    else if (conversion == 'r')
      value = to_repr(work_, value);
    else if (conversion != 0)
      work_.refuse("format conversion {} is not known", quote({&conversion, 1}));
    print(spec, value);
  }

  void print(Spec spec, const Value& value) {
    const bool is_flag = std::holds_alternative<bool>(value);
    if (as_number(value) && !(is_flag && spec.type == 0)) {
      if (spec.type == 0 && std::holds_alternative<double>(value) && spec.precision < 0) {
        const TaggedText body(float_text(std::abs(std::get<double>(value))), true);
        const bool negative = std::signbit(std::get<double>(value));
        const std::string_view sign = negative    ? "-"
                                      : spec.sign ? std::string_view(&spec.sign, 1)
                                                  : "";
        return pad(work_, spec, spec.align ? spec.align : '>', sign, body, out_);
      }
      if (spec.type == 0) spec.type = std::holds_alternative<double>(value) ? 'g' : 'd';
      return append_number(work_, spec, value, out_);
    }
    if (spec.type != 0 && spec.type != 's') {
      work_.refuse("format {} of {}", quote({&spec.type, 1}), kind_name(value));
    }
    const TextPtr text = to_text(work_, value);
    if (spec.align == '=') work_.refuse("format '=' of a string");
    append_string(work_, spec, spec.align ? spec.align : '<', *text, out_);
  }

  // "name", "0", "", followed by ".attribute" and "[item]".
  Value look_up(std::string_view path) {
    const size_t end = std::min(path.find_first_of(".["), path.size());
    Value value = argument(path.substr(0, end));
    path.remove_prefix(end);
    while (!path.empty()) {
      if (path[0] == '.') {
        const size_t stop = std::min(path.find_first_of(".[", 1), path.size());
        value = attribute_of(work_, value, std::string(path.substr(1, stop - 1)));
        path.remove_prefix(stop);
      } else {
        const size_t close = path.find(']');
        if (path[0] != '[' || close == std::string_view::npos)
          work_.refuse("a format with an open '['");
        const std::string_view key = path.substr(1, close - 1);
        int64_t index = 0;
        const auto [stop, error] = std::from_chars(key.data(), key.data() + key.size(), index);
        const bool is_index = error == std::errc() && stop == key.data() + key.size();
        value = item_of(work_, value, is_index ? Value(index) : markup_value(key));
        path.remove_prefix(close + 1);
      }
      if (is_undefined(value)) work_.refuse("a format of what is undefined");
    }
    return value;
  }

  Value argument(std::string_view name) {
    size_t index = 0;
    const auto [stop, error] = std::from_chars(name.data(), name.data() + name.size(), index);
    if (name.empty()) {
      index = next_++;
    } else if (error != std::errc() || stop != name.data() + name.size()) {
      for (const auto& [given, value] : args_.named) {
        if (given == name) return value;
      }
      work_.refuse("a format without a value for {}", quote(name));
    }
    if (!args_.has(index)) work_.refuse("a format with too few values");
    return args_[index];
  }

  Work& work_;
  const TaggedText& format_;
  const Bound& args_;
  size_t next_ = 0;
  TaggedText out_;
};

}  // namespace

Value percent_format(Work& work, const TaggedText& format, const Value& values) {
  return PercentFormat(work, format, values).run();
}

Value brace_format(Work& work, const TaggedText& format, const Bound& args) {
  return BraceFormat(work, format, args).run();
}

}  // namespace tandem::jinja
