// Point panels -> SVG: labels are placed where they cover least.
#include <algorithm>
#include <array>
#include <numeric>

#include "study/svg_marks.h"
#include "study/svg_plot.h"

namespace tandem {
namespace {

using namespace svg;

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
