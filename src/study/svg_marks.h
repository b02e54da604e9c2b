// Marks of a drawing: text, lines, whiskers and points appended to an SVG element's source.
#pragma once

#include <fmt/format.h>

#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include "study/svg_plot.h"

namespace tandem::svg {

inline constexpr double kWidth = 360;      // of a panel, in SVG units
// Of a character, in font sizes: the widest usual sans serif.
inline constexpr double kTextWidth = 0.6;
inline constexpr double kBoldWidth = 0.67;
inline constexpr double kLabelSize = 11;  // font size of labels, as the style sheet has it

template <typename... Args>
void put(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
}

size_t count_characters(std::string_view text);
double text_width(std::string_view text, double character = kTextWidth);

void open_svg(std::string& out, double height, std::string_view title);
void put_text(std::string& out, double x, double y, std::string_view classes,
              std::string_view text);
void put_line(std::string& out, double x1, double y1, double x2, double y2,
              std::string_view classes);
// From `from` to `to` along x (horizontal) or y, at `at` on the other axis.
void put_whisker(std::string& out, double from, double to, double at, bool horizontal);
void put_mark(std::string& out, double x, double y, int series, bool open, bool faded);

std::string tick_text(const Axis& axis, double tick);

}  // namespace tandem::svg
