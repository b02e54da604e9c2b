// The table of methods as a page: what each costs in divergence, against size and against speed.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "study/figure_parts.h"
#include "study/methods_table.h"
#include "study/report_style.h"
#include "study/svg_plot.h"

namespace tandem {
namespace {

// The series of a method: how its numbers are stored.
int series_of(const std::string& method) {
  const auto begins = [&](std::initializer_list<const char*> names) {
    return std::ranges::any_of(names, [&](const char* name) { return method.starts_with(name); });
  };
  if (method == kReferenceName) return 0;
  if (begins({"int8", "llm-int8", "smoothquant", "fp8"})) return 1;
  if (begins({"q"})) return 3;
  if (method.ends_with("24") || begins({"wanda", "sparsegpt", "learned"})) return 4;
  if (begins({"gqa"})) return 5;
  return 2;
}

std::optional<double> size_of(const MethodRow& row) { return megabytes(row.record.file_bytes); }
std::optional<double> speed_of(const MethodRow& row) {
  const double median = row.record.decode_tokens_per_second.median();
  return std::isfinite(median) ? std::optional(median) : std::nullopt;
}
using Abscissa = std::optional<double> (*)(const MethodRow&);

// The methods that differ from the baseline, by `x` and divergence.
std::vector<PlotPoint> points_of(const MethodSheet& sheet, Abscissa x) {
  std::vector<PlotPoint> points;
  for (const MethodRow& row : sheet.rows) {
    const Quality& q = row.record.quality;
    if (!q.kl_divergence || !(*q.kl_divergence > 0) || !std::isfinite(*q.kl_divergence)) continue;
    const std::optional<double> at = x(row);
    if (!at) continue;
    PlotPoint point;
    point.x = *at;
    point.y = *q.kl_divergence;
    point.label = row.record.cell.variant;
    point.series = series_of(point.label);
    points.push_back(std::move(point));
  }
  return points;
}

void find_front(PointPanel& panel) {
  const double sign = panel.better_right ? -1 : 1;
  for (size_t i = 0; i < panel.points.size(); ++i) {
    PlotPoint& p = panel.points[i];
    p.faded = std::ranges::any_of(panel.points, [&](const PlotPoint& q) {
      return (sign * q.x < sign * p.x && q.y <= p.y) || (sign * q.x <= sign * p.x && q.y < p.y);
    });
    if (!p.faded) panel.front.push_back(i);
  }
  std::ranges::sort(panel.front, {}, [&](size_t i) { return panel.points[i].x; });
}

// A panel a sheet on common axes: the twin's points stand where the model's would.
std::string panels_of(const std::vector<MethodSheet>& sheets, Abscissa x,
                      const std::string& x_title, bool better_right) {
  std::vector<PointPanel> panels;
  double most_x = 0, least_y = 1e300, most_y = 0;
  for (const MethodSheet& sheet : sheets) {
    PointPanel panel;
    panel.title = sheet.title;
    panel.better_right = better_right;
    panel.x_title = x_title;
    panel.y_title = "KL divergence from bf16, nats a token (log scale)";
    panel.points = points_of(sheet, x);
    for (const PlotPoint& p : panel.points) {
      most_x = std::max(most_x, p.x);
      least_y = std::min(least_y, p.y);
      most_y = std::max(most_y, p.y);
    }
    if (!panel.points.empty()) panels.push_back(std::move(panel));
  }
  std::string out;
  for (PointPanel& panel : panels) {
    panel.x = linear_axis(0, most_x * 1.1);
    panel.y = log_axis(least_y / 1.6, most_y * 1.3);
    find_front(panel);
    out += draw_points(panel);
  }
  return out;
}

std::string figure(const char* title, const std::string& panels) {
  if (panels.empty()) return "";
  return fmt::format(
      "<figure><h2>{}</h2><p class=\"sub\">The dotted steps join the methods that no other beats "
      "in both; the faded ones are beaten by at least one.</p><div class=\"panels\">{}</div>"
      "</figure>",
      title, panels);
}

std::string html_table(const MethodSheet& sheet) {
  std::string out = "<div class=\"scroll\"><table>";
  bool is_head = true;
  for (const auto& row : method_cells(sheet)) {
    out += is_head ? "<thead><tr>" : "<tr>";
    for (size_t i = 0; i < row.size(); ++i) {
      const char* tag = is_head || i == 0 ? "th" : "td";
      out += fmt::format("<{}>{}</{}>", tag, escape_html(row[i]), tag);
    }
    out += is_head ? "</tr></thead><tbody>" : "</tr>";
    is_head = false;
  }
  return out + "</tbody></table></div>";
}

}  // namespace

std::string methods_page(const std::vector<MethodSheet>& sheets) {
  std::string out =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
      "<title>What each method costs</title><style>";
  out += kReportStyle;
  out += "</style></head><body><main><header><h1>What each method costs</h1></header>";
  out +=
      figure("Size against divergence", panels_of(sheets, size_of, "size of the files, MB", false));
  if (!sheets.empty() && !sheets.front().rows.empty()) {
    const std::string where = clip_text(sheets.front().rows.front().record.cpu, 40);
    out += figure("Decode speed against divergence",
                  panels_of(sheets, speed_of, "tokens/s, batch 1, " + where, true));
  }
  for (const MethodSheet& sheet : sheets) {
    std::string notes;
    for (const std::string& note : method_notes(sheet)) {
      notes += fmt::format("<p class=\"sub\">{}</p>", escape_html(note));
    }
    out += fmt::format("<section><h2>{}</h2>{}{}</section>", escape_html(sheet.title),
                       html_table(sheet), notes);
  }
  return out + fmt::format("<p class=\"sub\">{}</p></main></body></html>\n",
                           escape_html(kMethodsMeaning));
}

}  // namespace tandem
