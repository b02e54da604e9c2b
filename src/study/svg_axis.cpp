// Numbers and text as a drawing shows them, and axes with round ends.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/utf8.h"
#include "study/svg_marks.h"
#include "study/svg_plot.h"

namespace tandem {

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  while (!text.empty()) {
    const size_t length = utf8_valid_length(text);
    const char c = text[0];
    const bool control = static_cast<unsigned char>(c) < 0x20 ? c != '\n' && c != '\t' : c == 0x7F;
    if (length == 0 || control) {
      out += "\xEF\xBF\xBD";
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else if (c == '\'') {
      out += "&#39;";
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return out;
}

std::string clip_text(std::string_view text, size_t max_characters) {
  std::string out;
  for (size_t n = 0; !text.empty(); ++n) {
    const size_t length = std::max<size_t>(utf8_valid_length(text), 1);
    if (n + 1 == max_characters && length < text.size()) return out + "\u2026";
    out += text.substr(0, length);
    text.remove_prefix(length);
  }
  return out;
}

std::string format_number(double value, int digits) {
  if (!std::isfinite(value)) return "n/a";
  const double size = std::abs(value);
  if (size != 0 && (size < 1e-4 || size >= 1e9)) return fmt::format("{:.{}e}", value, digits - 1);
  const int magnitude = size > 0 ? static_cast<int>(std::floor(std::log10(size))) : 0;
  Axis axis;
  axis.tick_decimals = size == 0 ? 0 : std::clamp(digits - 1 - magnitude, 0, 6);
  return svg::tick_text(axis, value);
}

std::string format_count(int64_t count) { return svg::tick_text(Axis{}, static_cast<double>(count)); }

double Axis::place(double value, double low_pixel, double high_pixel) const {
  const double v = std::clamp(value, low, high);
  const double share =
      logarithmic ? std::log(v / low) / std::log(high / low) : (v - low) / (high - low);
  return low_pixel + share * (high_pixel - low_pixel);
}

Axis linear_axis(double low, double high, int max_ticks) {
  if (!std::isfinite(low) || !std::isfinite(high) || high < low) low = 0, high = 1;
  // Below this the ticks would be equal in the digits of a double.
  const double least = std::max(std::abs(low), std::abs(high)) * 1e-9;
  if (high - low <= least) high = low + (low == 0 ? 1 : std::abs(low) * 0.1);
  const double rough = (high - low) / std::max(max_ticks - 1, 1);
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 2.5, 5.0}) {
    if (factor * power >= rough * (1 - 1e-9)) {
      step = factor * power;
      break;
    }
  }
  Axis axis;
  const double first = std::floor(low / step + 1e-9), last = std::ceil(high / step - 1e-9);
  axis.low = first * step;
  axis.high = last * step;
  for (double i = first; i <= last; ++i) axis.ticks.push_back(i * step);
  const int magnitude = static_cast<int>(std::floor(std::log10(step) + 1e-9));
  const bool quarter = std::abs(step / std::pow(10, magnitude) - 2.5) < 1e-6;
  axis.tick_decimals = std::max(0, -magnitude + (quarter ? 1 : 0));
  return axis;
}

Axis cut_axis(Axis axis, double high) {
  if (!(high > axis.low)) return axis;
  axis.high = std::min(axis.high, high);
  std::erase_if(axis.ticks, [&](double tick) { return tick > axis.high; });
  return axis;
}

Axis log_axis(double low, double high) {
  Axis axis;
  axis.logarithmic = true;
  axis.low = low;
  axis.high = std::max(high, low * 1.1);
  const int first = static_cast<int>(std::floor(std::log10(low)));
  const int last = static_cast<int>(std::ceil(std::log10(axis.high)));
  const bool only_powers = last - first > 3;
  for (int power = first; power <= last; ++power) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = factor * std::pow(10, power);
      if (tick < axis.low || tick > axis.high || (only_powers && factor != 1)) continue;
      axis.ticks.push_back(tick);
    }
  }
  return axis;
}

}  // namespace tandem
