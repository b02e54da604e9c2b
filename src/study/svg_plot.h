// Numbers -> inline SVG: axes with round ticks, bar panels and point panels, and labels that do not
// overlap. Colours come from the page's style sheet by class (s0 .. s7 a series, "h" hatched), so
// one drawing serves light, dark and paper. A panel is 360 units wide: it is legible on a phone,
// and wide screens set several side by side.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

inline constexpr int kNumSeries = 8;  // colours that the style sheet defines

// Text safe between tags and inside quoted attributes; what is not UTF-8 or is a control character
// (other than tab and newline) becomes U+FFFD.
std::string escape_html(std::string_view text);

// At most max_characters of valid UTF-8, the last an ellipsis if something was cut.
std::string clip_text(std::string_view text, size_t max_characters);

// About `digits` significant digits, point as decimal sign and comma between thousands whatever the
// locale; "n/a" for what is not finite.
std::string format_number(double value, int digits = 3);
std::string format_count(int64_t count);

struct Interval {
  double low = 0, high = 0;
};

struct Axis {
  double low = 0, high = 1;
  bool logarithmic = false;
  std::vector<double> ticks;
  int tick_decimals = 0;
  // Where `value` lies between the pixel of `low` and that of `high`; outside values are clamped.
  double place(double value, double low_pixel, double high_pixel) const;
};

// The smallest axis with round ends that covers [low, high]; degenerate ranges are widened.
Axis linear_axis(double low, double high, int max_ticks = 5);
// The same without the part above `high`, which then need not be round.
Axis cut_axis(Axis axis, double high);
// Covers [low, high] with ticks at 1, 2, 5 times powers of ten; low must be above 0.
Axis log_axis(double low, double high);

// One horizontal bar: stacked segments from zero, or a dot when the panel says so.
struct Bar {
  std::string label;             // left of it
  std::vector<double> segments;  // lengths in the axis' unit; empty: nothing was measured
  std::optional<Interval> whisker;
  std::optional<double> tick;  // a short line across the bar
  std::string value_label;     // right of it
  bool hatched = false;
  bool noisy = false;
};

struct BarGroup {
  std::string name;
  int series = 0;
  std::vector<Bar> bars;
};

struct BarPanel {
  std::string title, axis_title;
  Axis axis;
  std::vector<BarGroup> groups;
  bool dots = false;            // dots, for axes that do not start at zero
  std::optional<double> limit;  // a line over all bars
  std::string limit_label;
};

struct PlotPoint {
  double x = 0, y = 0;
  std::optional<Interval> x_whisker, y_whisker;
  std::string label;  // beside the point; empty: none
  int series = 0;
  bool open = false;  // an open diamond, not a filled circle
  bool faded = false;
  bool ringed = false;
};

struct PointPanel {
  std::string title, x_title, y_title;
  Axis x, y;
  std::vector<PlotPoint> points;
  std::vector<size_t> front;  // indices of points, in the order of x; drawn as steps
  bool better_right = true;   // which lower corner is the good one
};

// Each drawing is one <svg> element with a text alternative. Bar panels drawn together have the
// same margins, so that equal axes have equal length.
std::vector<std::string> draw_bars(const std::vector<BarPanel>& panels);
std::string draw_points(const PointPanel& panel);

}  // namespace tandem
