#include <cmath>

#include "base/utf8.h"
#include "text/jinja/operators.h"
#include "text/jinja/print.h"
#include "text/jinja/text.h"

namespace tandem::jinja {
namespace {

// One character as it stands between the quotes of JSON.
std::string json_char(std::string_view one, bool ascii_only) {
  static constexpr std::string_view kEscaped = "\"\\\n\r\t\b\f", kLetters = "\"\\nrtbf";
  const auto byte = static_cast<unsigned char>(one[0]);
  const size_t row = kEscaped.find(one[0]);
  if (row != std::string_view::npos) return fmt::format("\\{}", kLetters[row]);
  if (byte < 0x20) return fmt::format("\\u{:04x}", byte);
  if (byte < 0x80 || !ascii_only || one.size() == 1) return std::string(one);
  const uint32_t c = utf8_code_point(one, one.size());
  if (c < 0x10000) return fmt::format("\\u{:04x}", c);
  return fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((c - 0x10000) >> 10),
                     0xDC00 + ((c - 0x10000) & 0x3FF));
}

class JsonPrinter {
 public:
  JsonPrinter(Work& work, const JsonStyle& style, TaggedText& out)
      : work_(work), style_(style), out_(out) {}

  // Values nest at most kMaxNesting deep, which bounds the recursion.
  void print(const Value& value) {
    work_.step();
    if (const TaggedText* text = as_text(value)) return print_text(*text);
    if (const List* list = as_list(value)) return print_list(*list);
    if (const Dict* dict = as_dict(value)) return print_dict(*dict);
    mark(scalar(value));
  }

 private:
  void mark(std::string_view text) {
    work_.use_bytes(text.size());
    out_.append(text, true);
  }

  std::string scalar(const Value& value) {
    if (is_none(value)) return "null";
    if (const bool* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
    if (const int64_t* number = std::get_if<int64_t>(&value)) return std::to_string(*number);
    if (const double* number = std::get_if<double>(&value)) {
      if (std::isnan(*number)) return "NaN";
      if (std::isinf(*number)) return *number < 0 ? "-Infinity" : "Infinity";
      return float_text(*number);
    }
    work_.refuse("tojson of {}", kind_name(value));
  }

  void print_text(const TaggedText& text) {
    mark("\"");
    for (size_t at = 0; at < text.size();) {
      const size_t bytes = first_char_bytes(text.view(at));
      const std::string spelled = json_char(text.view(at).substr(0, bytes), style_.ascii_only);
      work_.use_bytes(spelled.size());
      out_.append(spelled, text.is_markup[at] != 0);
      at += bytes;
    }
    mark("\"");
  }

  void new_line() {
    if (!style_.indent) return;
    mark("\n");
    for (int i = 0; i < level_; ++i) {
      work_.use_bytes(style_.indent->size());
      out_.append(*style_.indent);
    }
  }

  // Everything between the brackets; `part` prints the i-th.
  template <typename Part>
  void enclosed(const char* open, const char* close, size_t count, Part part) {
    mark(open);
    if (count > 0) {
      ++level_;
      for (size_t i = 0; i < count; ++i) {
        if (i > 0) {
          work_.use_bytes(style_.item_separator.size());
          out_.append(style_.item_separator);
        }
        new_line();
        part(i);
      }
      --level_;
      new_line();
    }
    mark(close);
  }

  void print_list(const List& list) {
    if (list.kind != ListKind::list && list.kind != ListKind::tuple) {
      work_.refuse("tojson of what is no list; the filter list makes one of it");
    }
    enclosed("[", "]", list.items.size(), [&](size_t i) { print(list.items[i]); });
  }

  void print_dict(const Dict& dict) {
    std::vector<size_t> sequence(dict.entries.size());
    for (size_t i = 0; i < sequence.size(); ++i) sequence[i] = i;
    if (style_.sorts_keys) {
      sort_stably(
          work_, sequence, [&](size_t i) { return dict.entries[i].first; }, false);
    }
    enclosed("{", "}", sequence.size(), [&](size_t i) {
      const auto& [key, value] = dict.entries[sequence[i]];
      if (const TaggedText* name = as_text(key)) {
        print_text(*name);
      } else {
        print_text(TaggedText(scalar(key), true));
      }
      work_.use_bytes(style_.key_separator.size());
      out_.append(style_.key_separator);
      print(value);
    });
  }

  Work& work_;
  const JsonStyle& style_;
  TaggedText& out_;
  int level_ = 0;
};

}  // namespace

TextPtr to_json(Work& work, const Value& value, const JsonStyle& style) {
  TaggedText out;
  JsonPrinter(work, style, out).print(value);
  return std::make_shared<const TaggedText>(std::move(out));
}

}  // namespace tandem::jinja
