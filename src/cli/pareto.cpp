#include "cli/pareto.h"

#include <fmt/format.h>

#include <algorithm>

#include "study/report_style.h"
#include "study/svg_plot.h"

namespace tandem {
namespace {

constexpr size_t kFigurePoints = 60;

double shown_size(const Allocation& allocation, const ParetoAxes& axes) {
  return allocation.size / (axes.unit == BudgetUnit::bytes ? 1 << 20 : 1000);
}

// "MiB", and what there is so much of.
std::pair<const char*, const char*> size_names(const ParetoAxes& axes) {
  constexpr const char* kStep = "of a decode step's linears";
  return axes.unit == BudgetUnit::bytes         ? std::pair{"MiB", "of layer weights"}
         : axes.unit == BudgetUnit::nanoseconds ? std::pair{"us", kStep}
                                                : std::pair{"mJ", kStep};
}

// At most `count` of the curve at even distances, both ends and the chosen one among them.
std::vector<const Allocation*> thinned(const std::vector<Allocation>& curve,
                                       const Allocation& chosen, size_t count) {
  std::vector<const Allocation*> kept;
  const size_t steps = std::min(curve.size(), std::max<size_t>(count, 2));
  for (size_t i = 0; i < steps; ++i) {
    kept.push_back(&curve[steps == 1 ? 0 : i * (curve.size() - 1) / (steps - 1)]);
  }
  if (std::ranges::find(kept, &chosen) == kept.end()) {
    kept.insert(std::ranges::upper_bound(kept, chosen.size, {},
                                         [](const Allocation* a) { return a->size; }),
                &chosen);
  }
  return kept;
}

}  // namespace

std::string pareto_table(const std::vector<Allocation>& curve, const Allocation& chosen,
                         const ParetoAxes& axes, size_t rows) {
  const bool has_bits = axes.unit == BudgetUnit::bytes;
  std::string out = fmt::format("  {:>10}{}  {}\n", size_names(axes).first,
                                has_bits ? "   bits each" : "", axes.cost);
  for (const Allocation* point : thinned(curve, chosen, rows)) {
    out += fmt::format("{} {:>10.1f}", point == &chosen ? '>' : ' ', shown_size(*point, axes));
    if (has_bits) {
      out +=
          fmt::format("  {:>10.3f}", 8 * point->size / static_cast<double>(axes.num_layer_weights));
    }
    out += fmt::format("  {:.5g}\n", point->cost);
  }
  return out;
}

std::string pareto_svg(const std::vector<Allocation>& curve, const Allocation& chosen,
                       const ParetoAxes& axes) {
  PointPanel panel;
  panel.title = "Mixed precision: what each budget costs";
  panel.x_title = fmt::format("{} {}", size_names(axes).first, size_names(axes).second);
  panel.y_title = axes.cost;
  panel.x = linear_axis(shown_size(curve.front(), axes), shown_size(curve.back(), axes));
  panel.y = linear_axis(0.0, curve.front().cost);
  panel.better_right = false;
  for (const Allocation* point : thinned(curve, chosen, kFigurePoints)) {
    panel.front.push_back(panel.points.size());
    PlotPoint drawn;
    drawn.x = shown_size(*point, axes);
    drawn.y = point->cost;
    drawn.series = 1;
    drawn.ringed = point == &chosen;
    if (drawn.ringed) drawn.label = "chosen";
    panel.points.push_back(std::move(drawn));
  }
  std::string svg = draw_points(panel);
  // A file of its own names its language and brings the colours that a page would.
  const size_t end = svg.find('>');
  svg.insert(end + 1, fmt::format("<style><![CDATA[{}]]></style>", kReportStyle));
  if (svg.find("xmlns=") == std::string::npos) {
    svg.insert(sizeof("<svg") - 1, " xmlns=\"http://www.w3.org/2000/svg\"");
  }
  return svg + "\n";
}

}  // namespace tandem
