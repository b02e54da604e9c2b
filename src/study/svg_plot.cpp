#include "study/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <numeric>

#include "base/utf8.h"

namespace tandem {
namespace {

constexpr double kWidth = 360;      // of a panel, in SVG units
constexpr double kTextWidth = 0.6;  // of a character, in font sizes: the widest usual sans serif
constexpr double kBoldWidth = 0.67;
constexpr double kLabelSize = 11;  // font size of labels, as the style sheet has it

template <typename... Args>
void put(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
}

size_t count_characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

double text_width(std::string_view text, double character = kTextWidth) {
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

struct Box {
  double left = 0, top = 0, right = 0, bottom = 0;
  double overlap(const Box& b) const {
    const double w = std::min(right, b.right) - std::max(left, b.left);
    const double h = std::min(bottom, b.bottom) - std::max(top, b.top);
    return w > 0 && h > 0 ? w * h : 0;
  }
};

struct PlacedLabel {
  Box box{};
  double distance = 0;
  double side = 0;  // -1 left of the point, 1 right of it, 0 centred
};

// The place around (x, y) that covers least of `taken` and leaves `bounds` least; near is better.
PlacedLabel place_label(double x, double y, double width, const Box& bounds,
                        const std::vector<Box>& taken) {
  constexpr double kHeight = 12;
  constexpr std::array<std::array<double, 2>, 8> kDirections{
      {{1, 0}, {-1, 0}, {0, -1}, {0, 1}, {1, -1}, {-1, -1}, {1, 1}, {-1, 1}}};
  PlacedLabel best;
  double best_cost = 1e300;
  for (const double distance : {8.0, 16.0, 26.0, 38.0, 52.0}) {
    for (const auto& [dx, dy] : kDirections) {
      const double left = x + dx * distance - (dx < 0 ? width : dx > 0 ? 0 : width / 2);
      const double middle = y + dy * (distance + kHeight / 2);
      const Box box{left, middle - kHeight / 2, left + width, middle + kHeight / 2};
      double cost = distance * 0.6;
      for (const Box& b : taken) cost += 4 * box.overlap(b);
      cost += 20 * (width * kHeight - box.overlap(bounds));
      if (cost < best_cost) {
        best_cost = cost;
        best = {box, distance, dx};
      }
    }
  }
  return best;
}

}  // namespace

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
  return tick_text(axis, value);
}

std::string format_count(int64_t count) { return tick_text(Axis{}, static_cast<double>(count)); }

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

namespace {

constexpr double kBarHeight = 12, kBarPitch = 16, kGroupGap = 24;
constexpr double kBarsTop = 30;

void put_bar(std::string& out, const BarPanel& panel, const BarGroup& group, const Bar& bar,
             double left, double right, double top) {
  const double middle = top + kBarHeight / 2;
  put_text(out, left - 6, middle + 3.5, "lb e", bar.label);
  if (bar.segments.empty()) {
    put_text(out, left + 5, middle + 3.5, "lb mu", bar.value_label);
    return;
  }
  double sum = 0, end = left;
  for (size_t i = 0; i < bar.segments.size(); ++i) {
    sum += bar.segments[i];
    const double next = panel.axis.place(sum, left, right);
    if (!panel.dots) {
      put(out,
          "<rect class=\"s{} {}{} g{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{}\"/>",
          group.series, "b", bar.hatched ? " h" : "", i, end, top, std::max(next - end, 0.5),
          kBarHeight);
    }
    end = next;
  }
  if (bar.whisker) {
    const double low = panel.axis.place(bar.whisker->low, left, right);
    const double high = panel.axis.place(bar.whisker->high, left, right);
    put_whisker(out, low, high, middle, true);
    end = std::max(end, high);
  }
  if (panel.dots)
    put_mark(out, panel.axis.place(sum, left, right), middle, group.series, bar.hatched, false);
  if (bar.tick) {
    const double x = panel.axis.place(*bar.tick, left, right);
    put_line(out, x, top - 1.5, x, top + kBarHeight + 1.5, "tk");
    end = std::max(end, x);
  }
  const double label_x = end + (panel.dots ? 9 : 5);
  put(out, "<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"lb va\">{}{}</text>", label_x, middle + 3.5,
      escape_html(bar.value_label), bar.noisy ? "<tspan class=\"no\"> noisy</tspan>" : "");
}

}  // namespace

namespace {

// The largest value that is drawn of it.
double bar_end(const Bar& bar) {
  const double sum = std::accumulate(bar.segments.begin(), bar.segments.end(), 0.0);
  return std::max({sum, bar.whisker ? bar.whisker->high : sum, bar.tick.value_or(sum)});
}

std::string draw_bar_panel(const BarPanel& panel, double left, double right) {
  const double top = kBarsTop + (panel.limit ? 12 : 0);
  double bottom = top + 2;
  for (const BarGroup& group : panel.groups) {
    bottom += kGroupGap + kBarPitch * static_cast<double>(group.bars.size());
  }
  std::string out;
  open_svg(out, bottom + 36, panel.title);
  for (const double tick : panel.axis.ticks) {
    const double x = panel.axis.place(tick, left, right);
    put_line(out, x, top - 4, x, bottom, tick == 0 ? "ax" : "gr");
    put_text(out, x, bottom + 13, "ti m", tick_text(panel.axis, tick));
  }
  if (panel.limit) {
    const double x = panel.axis.place(*panel.limit, left, right);
    put_line(out, x, top - 4, x, bottom, "li");
    put_text(out, x > kWidth * 0.6 ? x + 4 : x - 4, top - 8, x > kWidth * 0.6 ? "lb e no" : "lb no",
             panel.limit_label);
  }
  double y = top;
  for (const BarGroup& group : panel.groups) {
    put(out, "<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"gn s{}\">{}</text>", left + 1, y + 11,
        group.series, escape_html(clip_text(group.name, 36)));
    y += 16;
    for (const Bar& bar : group.bars) {
      put_bar(out, panel, group, bar, left, right, y);
      y += kBarPitch;
    }
    y += kGroupGap - 16;
  }
  put_text(out, left, bottom + 29, "at", panel.axis_title);
  return out + "</svg>";
}

}  // namespace

std::vector<std::string> draw_bars(const std::vector<BarPanel>& panels) {
  double left = 32, right = kWidth - 16;
  for (const BarPanel& panel : panels) {
    for (const BarGroup& group : panel.groups) {
      for (const Bar& bar : group.bars) left = std::max(left, text_width(bar.label) + 8);
    }
  }
  left = std::min(left, 110.0);
  // The longest axis with which each value label still ends inside the panel.
  for (const BarPanel& panel : panels) {
    for (const BarGroup& group : panel.groups) {
      for (const Bar& bar : group.bars) {
        if (bar.segments.empty()) continue;
        const double room = kWidth - left - 13 - text_width(bar.value_label) -
                            (bar.noisy ? text_width(" noisy") : 0);
        const double share = panel.axis.place(bar_end(bar), 0, 1);
        if (share > 0) right = std::min(right, left + std::max(room, 60.0) / share);
      }
    }
  }
  std::vector<std::string> drawings;
  for (const BarPanel& panel : panels) drawings.push_back(draw_bar_panel(panel, left, right));
  return drawings;
}

namespace {

struct Frame {
  double left, top, right, bottom;
};

void put_point_axes(std::string& out, const PointPanel& panel, const Frame& f) {
  for (const double tick : panel.x.ticks) {
    const double x = panel.x.place(tick, f.left, f.right);
    put_line(out, x, f.top, x, f.bottom, "gr");
    put_text(out, x, f.bottom + 14, "ti m", tick_text(panel.x, tick));
  }
  for (const double tick : panel.y.ticks) {
    const double y = panel.y.place(tick, f.bottom, f.top);
    put_line(out, f.left, y, f.right, y, "gr");
    put_text(out, f.left - 5, y + 3.5, "ti e", tick_text(panel.y, tick));
  }
  put_line(out, f.left, f.bottom, f.right, f.bottom, "ax");
  put_text(out, f.left, f.bottom + 30, "at", panel.x_title);
  put_text(out, 0, 29, "at", panel.y_title);
}

void put_front(std::string& out, const PointPanel& panel, const Frame& f) {
  if (panel.front.size() < 2) return;
  std::string path;
  for (size_t i = 0; i < panel.front.size(); ++i) {
    const PlotPoint& point = panel.points[panel.front[i]];
    const double x = panel.x.place(point.x, f.left, f.right);
    const double y = panel.y.place(point.y, f.bottom, f.top);
    // Between two points only the worse of both is known to be reachable.
    if (i == 0) {
      put(path, "M{:.1f} {:.1f}", x, y);
    } else if (panel.better_right) {
      put(path, "V{:.1f}H{:.1f}", y, x);
    } else {
      put(path, "H{:.1f}V{:.1f}", x, y);
    }
  }
  put(out, "<path class=\"fr\" d=\"{}\"/>", path);
}

// Labels are placed one by one and then moved, each given all others; few move after this many
// rounds.
constexpr int kLabelRounds = 6;

std::vector<PlacedLabel> place_labels(const PointPanel& panel, const Box& bounds,
                                      const std::vector<std::array<double, 2>>& at,
                                      const std::vector<Box>& marks) {
  std::vector<PlacedLabel> labels(panel.points.size());
  std::vector<size_t> order(labels.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // Short labels first: they fit in the gaps that a long one would close.
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return panel.points[a].label.size() < panel.points[b].label.size();
  });
  for (int round = 0; round < kLabelRounds; ++round) {
    for (const size_t i : order) {
      if (panel.points[i].label.empty()) continue;
      std::vector<Box> taken = marks;
      for (size_t j = 0; j < labels.size(); ++j) {
        if (j != i) taken.push_back(labels[j].box);
      }
      labels[i] = place_label(at[i][0], at[i][1], text_width(panel.points[i].label, kBoldWidth),
                              bounds, taken);
    }
  }
  return labels;
}

void put_labels(std::string& out, const PointPanel& panel, const Frame& f,
                const std::vector<std::array<double, 2>>& at, const std::vector<Box>& marks) {
  const Box bounds{f.left - 4, f.top - 2, kWidth, f.bottom};
  const std::vector<PlacedLabel> labels = place_labels(panel, bounds, at, marks);
  for (size_t i = 0; i < labels.size(); ++i) {
    const PlotPoint& point = panel.points[i];
    const PlacedLabel& label = labels[i];
    const Box& box = label.box;
    if (point.label.empty()) continue;
    if (label.distance > 10) {
      put_line(out, at[i][0], at[i][1], std::clamp(at[i][0], box.left, box.right),
               std::clamp(at[i][1], box.top, box.bottom), "ld");
    }
    // Anchored on the point's side, so that a font narrower than assumed leaves no gap.
    const char* anchor = label.side < 0 ? " e" : label.side > 0 ? "" : " m";
    const double x = label.side < 0   ? box.right
                     : label.side > 0 ? box.left
                                      : (box.left + box.right) / 2;
    put_text(out, x, box.bottom - 2.5,
             fmt::format("lb pl s{}{}{}", point.series, anchor, point.faded ? " fd" : ""),
             point.label);
  }
}

}  // namespace

std::string draw_points(const PointPanel& panel) {
  double tick_room = 0;
  for (const double tick : panel.y.ticks) {
    tick_room = std::max(tick_room, text_width(tick_text(panel.y, tick)));
  }
  const Frame f{tick_room + 10, 40, kWidth - 20, 268};
  std::string out;
  open_svg(out, f.bottom + 38, panel.title);
  put_point_axes(out, panel, f);
  put_front(out, panel, f);
  std::vector<std::array<double, 2>> at;
  std::vector<Box> taken;
  for (const PlotPoint& point : panel.points) {
    const double x = panel.x.place(point.x, f.left, f.right);
    const double y = panel.y.place(point.y, f.bottom, f.top);
    at.push_back({x, y});
    const double reach = point.ringed ? 10 : 6;
    taken.push_back({x - reach, y - reach, x + reach, y + reach});
    put(out, "<g class=\"pw{}\">", point.faded ? " fd" : "");
    if (point.x_whisker) {
      const double low = panel.x.place(point.x_whisker->low, f.left, f.right);
      const double high = panel.x.place(point.x_whisker->high, f.left, f.right);
      put_whisker(out, low, high, y, true);
      taken.push_back({low, y - 2, high, y + 2});
    }
    if (point.y_whisker) {
      const double low = panel.y.place(point.y_whisker->low, f.bottom, f.top);
      const double high = panel.y.place(point.y_whisker->high, f.bottom, f.top);
      put_whisker(out, low, high, x, false);
      taken.push_back({x - 2, high, x + 2, low});
    }
    out += "</g>";
    put_mark(out, x, y, point.series, point.open, point.faded);
    if (point.ringed)
      put(out, "<circle class=\"rg\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"9.5\"/>", x, y);
  }
  const char* corner = panel.better_right ? "better \u2198" : "\u2199 better";
  const double corner_x = panel.better_right ? f.right - 4 : f.left + 6;
  put_text(out, corner_x, f.bottom - 6, panel.better_right ? "co e" : "co", corner);
  const double corner_left = panel.better_right ? f.right - 56 : f.left;
  taken.push_back({corner_left, f.bottom - 18, corner_left + 56, f.bottom});
  put_labels(out, panel, f, at, taken);
  return out + "</svg>";
}

}  // namespace tandem
