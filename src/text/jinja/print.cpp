#include "text/jinja/print.h"

#include <utf8proc.h>

#include <cmath>

#include "base/utf8.h"
#include "text/jinja/operators.h"
#include "text/jinja/text.h"

namespace tandem::jinja {
namespace {

bool is_printable(uint32_t c) {
  if (c == ' ') return true;
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  switch (category) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

// One character as repr spells it between quotes.
std::string repr_char(std::string_view one, char quote_sign) {
  if (one.size() == 1) {
    const auto c = static_cast<unsigned char>(one[0]);
    if (c == '\n') return "\\n";
    if (c == '\r') return "\\r";
    if (c == '\t') return "\\t";
    if (one[0] == quote_sign || c == '\\') return fmt::format("\\{}", one);
    if (c < 0x20 || c >= 0x7F) return fmt::format("\\x{:02x}", c);
    return std::string(one);
  }
  const uint32_t c = utf8_code_point(one, one.size());
  if (is_printable(c)) return std::string(one);
  if (c < 0x100) return fmt::format("\\x{:02x}", c);
  return c < 0x10000 ? fmt::format("\\u{:04x}", c) : fmt::format("\\U{:08x}", c);
}

class Printer {
 public:
  Printer(Work& work, TaggedText& out) : work_(work), out_(out) {}

  void repr(const Value& value) {
    work_.step();
    if (const TaggedText* text = as_text(value)) return repr_text(*text);
    if (const List* list = as_list(value)) return repr_list(*list);
    if (const Dict* dict = as_dict(value)) return repr_entries(*dict);
    if (const Namespace* names = as_namespace(value)) {
      mark("<Namespace {");
      const char* comma = "";
      for (const auto& [name, held] : names->entries) {
        mark(comma);
        comma = ", ";
        repr_text(TaggedText(name, true));
        mark(": ");
        repr(held);
      }
      return mark("}>");
    }
    mark(is_undefined(value) ? "Undefined" : scalar(value));
  }

  std::string scalar(const Value& value) {
    if (is_undefined(value)) return "";
    if (is_none(value)) return "None";
    if (const bool* flag = std::get_if<bool>(&value)) return *flag ? "True" : "False";
    if (const int64_t* number = std::get_if<int64_t>(&value)) return std::to_string(*number);
    if (const double* number = std::get_if<double>(&value)) return float_text(*number);
    work_.refuse("{} cannot be printed", kind_name(value));
  }

 private:
  void mark(std::string_view text) {
    work_.use_bytes(text.size());
    out_.append(text, true);
  }

  void repr_text(const TaggedText& text) {
    work_.use_bytes(4 * text.size());
    const bool has_single = text.bytes.find('\'') != std::string::npos;
    const bool has_double = text.bytes.find('"') != std::string::npos;
    const char quote_sign = has_single && !has_double ? '"' : '\'';
    mark(text.is_safe ? "Markup(" : "");
    mark({&quote_sign, 1});
    for (size_t at = 0; at < text.size();) {
      const size_t bytes = first_char_bytes(text.view(at));
      out_.append(repr_char(text.view(at).substr(0, bytes), quote_sign), text.is_markup[at] != 0);
      at += bytes;
    }
    mark({&quote_sign, 1});
    mark(text.is_safe ? ")" : "");
  }

  void repr_list(const List& list) {
    static constexpr std::pair<const char*, const char*> kBrackets[] = {{"[", "]"},
                                                                        {"(", ")"},
                                                                        {"range(", ")"},
                                                                        {"dict_keys([", "])"},
                                                                        {"dict_values([", "])"},
                                                                        {"dict_items([", "])"},
                                                                        {"", ""}};
    if (list.kind == ListKind::generator) {
      work_.refuse("a generator cannot be printed; the filter list makes a list of it");
    }
    const auto& [open, close] = kBrackets[static_cast<size_t>(list.kind)];
    mark(open);
    if (list.kind == ListKind::range) {
      mark(fmt::format("{}, {}", list.start, list.stop));
      if (list.stride != 1) mark(fmt::format(", {}", list.stride));
    } else {
      for (size_t i = 0; i < list.items.size(); ++i) {
        if (i > 0) mark(", ");
        repr(list.items[i]);
      }
      if (list.kind == ListKind::tuple && list.items.size() == 1) mark(",");
    }
    mark(close);
  }

  void repr_entries(const Dict& dict) {
    mark("{");
    for (size_t i = 0; i < dict.entries.size(); ++i) {
      if (i > 0) mark(", ");
      repr(dict.entries[i].first);
      mark(": ");
      repr(dict.entries[i].second);
    }
    mark("}");
  }

  Work& work_;
  TaggedText& out_;
};

}  // namespace

std::string float_text(double number) {
  if (std::isnan(number)) return "nan";
  std::string text = fmt::format("{}", number);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

TextPtr to_text(Work& work, const Value& value) {
  if (const TextPtr* text = std::get_if<TextPtr>(&value)) return *text;
  TaggedText out;
  Printer printer(work, out);
  if (as_list(value) || as_dict(value) || as_namespace(value)) {
    printer.repr(value);
  } else {
    out.append(printer.scalar(value), true);
  }
  return std::make_shared<const TaggedText>(std::move(out));
}

TextPtr to_repr(Work& work, const Value& value) {
  TaggedText out;
  Printer(work, out).repr(value);
  return std::make_shared<const TaggedText>(std::move(out));
}

TaggedText html_escaped(Work& work, const TaggedText& text) {
  TaggedText out;
  out.is_safe = true;
  work.use_bytes(5 * text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const std::string_view one = text.view(i).substr(0, 1);
    const std::string_view spelled = one == "&"    ? "&amp;"
                                     : one == "<"  ? "&lt;"
                                     : one == ">"  ? "&gt;"
                                     : one == "'"  ? "&#39;"
                                     : one == "\"" ? "&#34;"
                                                   : one;
    out.append(spelled, text.is_markup[i] != 0);
  }
  return out;
}

Value joined(Work& work, const TaggedText& left, const TaggedText& right) {
  work.use_bytes(left.size() + right.size());
  if (left.is_safe == right.is_safe) {
    TaggedText both = left;
    both.append(right);
    return text_value(std::move(both));
  }
  TaggedText both = left.is_safe ? left : html_escaped(work, left);
  both.append(right.is_safe ? right : html_escaped(work, right));
  return text_value(std::move(both));
}

}  // namespace tandem::jinja
