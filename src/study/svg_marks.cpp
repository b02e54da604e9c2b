#include "study/svg_marks.h"

#include <algorithm>
#include <cmath>

namespace tandem::svg {

size_t count_characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

double text_width(std::string_view text, double character) {
  return static_cast<double>(count_characters(text)) * kLabelSize * character;
}

void put_text(std::string& out, double x, double y, std::string_view classes,
              std::string_view text) {
  put(out, "<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"{}\">{}</text>", x, y, classes,
      escape_html(text));
}

void put_line(std::string& out, double x1, double y1, double x2, double y2,
              std::string_view classes) {
  put(out, "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"{}\"/>", x1, y1,
      x2, y2, classes);
}

void open_svg(std::string& out, double height, std::string_view title) {
  put(out,
      "<svg class=\"plot\" viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">"
      "<text x=\"0\" y=\"13\" class=\"pt\">{}</text>",
      kWidth, height, escape_html(title), escape_html(title));
}

void put_whisker(std::string& out, double from, double to, double at, bool horizontal) {
  const double cap = 3;
  if (horizontal) {
    put(out, "<path class=\"wh\" d=\"M{:.1f} {:.1f}H{:.1f}M{:.1f} {:.1f}v{}M{:.1f} {:.1f}v{}\"/>",
        from, at, to, from, at - cap, 2 * cap, to, at - cap, 2 * cap);
  } else {
    put(out, "<path class=\"wh\" d=\"M{:.1f} {:.1f}V{:.1f}M{:.1f} {:.1f}h{}M{:.1f} {:.1f}h{}\"/>",
        at, from, to, at - cap, from, 2 * cap, at - cap, to, 2 * cap);
  }
}

void put_mark(std::string& out, double x, double y, int series, bool open, bool faded) {
  const char* fade = faded ? " fd" : "";
  if (open) {
    put(out, "<path class=\"s{} om{}\" d=\"M{:.1f} {:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z\"/>", series,
        fade, x, y - 5.5);
  } else {
    put(out, "<circle class=\"s{} fm{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5\"/>", series, fade, x,
        y);
  }
}

std::string tick_text(const Axis& axis, double tick) {
  if (axis.logarithmic || std::abs(tick) >= 1e9 || axis.tick_decimals > 6) {
    return format_number(tick, 2);
  }
  std::string text = fmt::format("{:.{}f}", tick, axis.tick_decimals);
  const size_t point = text.find('.');
  const size_t first = text[0] == '-' ? 1 : 0;
  for (size_t i = point == std::string::npos ? text.size() : point; i > first + 3;) {
    i -= 3;
    text.insert(i, 1, ',');
  }
  return text;
}

}  // namespace tandem::svg
