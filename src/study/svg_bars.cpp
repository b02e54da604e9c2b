// Bar panels -> SVG.
#include <algorithm>
#include <numeric>

#include "study/svg_marks.h"
#include "study/svg_plot.h"

namespace tandem {
namespace {

using namespace svg;

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

}  // namespace tandem
