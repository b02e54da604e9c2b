#include <cmath>

#include "text/jinja/format.h"
#include "text/jinja/format_spec.h"
#include "text/jinja/print.h"

namespace tandem::jinja {
namespace {

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
    if (!tuple_ || num_used_ >= tuple_->items.size()) {
      work_.refuse("a % format with too few values");
    }
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
    FormatSpec spec;
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

  void convert(FormatSpec& spec, const Value& value) {
    if (spec.type == 's' || spec.type == 'r') {
      spec.fill = ' ';
      TextPtr text = spec.type == 's' ? to_text(work_, value) : to_repr(work_, value);
      if (out_.is_safe && !text->is_safe) {
        text = std::make_shared<const TaggedText>(html_escaped(work_, *text));
      }
      return append_string(work_, spec, '>', *text, out_);
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

}  // namespace

Value percent_format(Work& work, const TaggedText& format, const Value& values) {
  return PercentFormat(work, format, values).run();
}

}  // namespace tandem::jinja
