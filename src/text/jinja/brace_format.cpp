#include <charconv>
#include <cmath>

#include "text/jinja/format.h"
#include "text/jinja/format_spec.h"
#include "text/jinja/members.h"
#include "text/jinja/print.h"

namespace tandem::jinja {
namespace {

FormatSpec parse_spec(Work& work, std::string_view text) {
  FormatSpec spec;
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
  if (take('+')) {
    spec.sign = '+';
  } else if (take(' ')) {
    spec.sign = ' ';
  } else {
    take('-');
  }
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
    if (text.find('{') != std::string_view::npos) {
      work_.refuse("nested format fields are not known");
    }
    const size_t colon = std::min(text.find(':'), text.size());
    std::string_view path = text.substr(0, colon);
    const std::string_view spec = text.substr(std::min(colon + 1, text.size()));
    char conversion = 0;
    if (path.size() >= 2 && path[path.size() - 2] == '!') {
      conversion = path.back();
      path.remove_suffix(2);
    }
    Value value = look_up(path);
    if (conversion == 's') {
      value = to_text(work_, value);
    } else if (conversion == 'r') {
      value = to_repr(work_, value);
    } else if (conversion != 0) {
      work_.refuse("format conversion {} is not known", quote({&conversion, 1}));
    }
    if (!spec.empty()) return print(parse_spec(work_, spec), value);
    out_.append(*to_text(work_, value));
  }

  void print(FormatSpec spec, const Value& value) {
    const bool is_float = std::holds_alternative<double>(value);
    if (as_number(value)) {
      if (spec.type == 0 && is_float) {
        if (spec.precision >= 0) work_.refuse("a float's precision without a type is not known");
        const TaggedText body(float_text(std::abs(std::get<double>(value))), true);
        const std::string_view sign = sign_of(spec, std::get<double>(value));
        return append_padded(work_, spec, '>', sign, body, out_);
      }
      if (spec.type == 0) spec.type = 'd';
      return append_number(work_, spec, value, out_);
    }
    const TaggedText* text = as_text(value);
    if (!text || (spec.type != 0 && spec.type != 's')) {
      work_.refuse("format {} of {}", quote({&spec.type, 1}), kind_name(value));
    }
    if (spec.align == '=') work_.refuse("format '=' of a string");
    append_string(work_, spec, '<', *text, out_);
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
        if (path[0] != '[' || close == std::string_view::npos) {
          work_.refuse("a format with an open '['");
        }
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

Value brace_format(Work& work, const TaggedText& format, const Bound& args) {
  return BraceFormat(work, format, args).run();
}

}  // namespace tandem::jinja
