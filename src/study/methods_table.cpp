#include "study/methods_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "study/figure_parts.h"
#include "study/report_style.h"
#include "study/svg_plot.h"

namespace tandem {
namespace {

constexpr const char* kMeaning =
    "bits: of a weight of the layers' matrices with its scales. size: the files that hold the "
    "weights. perplexity: protocol B, its change against the same model's bf16 with the error of "
    "the paired difference. KL: nats a token from bf16 to the method. top-1: share of equal first "
    "choices. HellaSwag: acc_norm. decode: tokens/s, batch 1.";

std::string text(std::optional<double> value, int decimals, double scale = 1) {
  if (!value || !std::isfinite(*value)) return "-";
  return fmt::format("{:.{}f}", scale * *value, decimals);
}

std::string with_error(std::optional<double> value, std::optional<double> error, int decimals,
                       double scale = 1) {
  if (!value || !std::isfinite(*value)) return "-";
  return text(value, decimals, scale) + " \u00b1 " + text(error, decimals, scale);
}

// exp(log_ratio) - 1 in percent and its error.
std::string perplexity_change(const Quality& q) {
  if (!q.log_ratio) return "-";
  const double ratio = std::exp(*q.log_ratio);
  const double error = q.log_ratio_stderr ? 100 * ratio * *q.log_ratio_stderr : NAN;
  return fmt::format("{:+.1f} \u00b1 {} %", 100 * (ratio - 1), text(error, 1));
}

std::vector<std::string> processors_of(const MethodSheet& sheet) {
  std::set<std::string> names;
  for (const MethodRow& row : sheet.rows) {
    for (const auto& [name, speed] : row.decode_elsewhere) names.insert(name);
  }
  return {names.begin(), names.end()};
}

std::vector<std::vector<std::string>> cells_of(const MethodSheet& sheet) {
  const std::vector<std::string> elsewhere = processors_of(sheet);
  const std::string here = sheet.rows.empty() ? "" : sheet.rows.front().record.cpu;
  std::vector<std::vector<std::string>> table = {
      {"method", "bits", "size MB", "perplexity", "change", "KL", "top-1 %", "HellaSwag %",
       "decode tok/s, " + here}};
  for (const std::string& name : elsewhere) table.front().push_back("decode tok/s, " + name);
  for (const MethodRow& row : sheet.rows) {
    const Quality& q = row.record.quality;
    std::vector<std::string> cells = {
        row.method,
        text(row.layer_bits, 2),
        text(megabytes(row.record.file_bytes), 1),
        with_error(q.perplexity, q.perplexity_stderr, 2),
        perplexity_change(q),
        with_error(q.kl_divergence, q.kl_stderr, 4),
        text(q.top1_agreement, 1, 100),
        row.hellaswag ? with_error(row.hellaswag->mean, row.hellaswag->error, 1, 100) : "-",
        text(row.record.decode_tokens_per_second.median(), 1) + (row.record.noisy ? "*" : "")};
    for (const std::string& name : elsewhere) {
      const auto found = row.decode_elsewhere.find(name);
      cells.push_back(found == row.decode_elsewhere.end() ? "-" : text(found->second, 1));
    }
    table.push_back(std::move(cells));
  }
  return table;
}

bool any_noisy(const MethodSheet& sheet) {
  return std::ranges::any_of(sheet.rows, [](const MethodRow& row) { return row.record.noisy; });
}

// What one row has seen, the others have too.
std::string provenance(const MethodSheet& sheet) {
  if (sheet.rows.empty()) return "Nothing was measured.";
  const Record& r = sheet.rows.front().record;
  return fmt::format("{} tokens scored; threads {}, {}; tandem {}, commit {}; source {}.{}",
                     r.quality.scored_tokens, r.threads, r.isa, r.version, r.commit, r.model_hash,
                     any_noisy(sheet) ? " * the runs spread by more than 10 %." : "");
}

// The series of a method: how its numbers are stored.
int series_of(const std::string& method) {
  if (method == kReferenceName) return 0;
  if (method.starts_with("int8") || method.starts_with("llm-int8")) return 1;
  if (method.starts_with("int")) return 2;
  if (method.starts_with("q")) return 3;
  return 4;
}

// The methods that differ from the baseline, by size and divergence.
std::vector<PlotPoint> points_of(const MethodSheet& sheet) {
  std::vector<PlotPoint> points;
  for (const MethodRow& row : sheet.rows) {
    const Quality& q = row.record.quality;
    if (!q.kl_divergence || !(*q.kl_divergence > 0) || !std::isfinite(*q.kl_divergence)) continue;
    PlotPoint point;
    point.x = megabytes(row.record.file_bytes);
    point.y = *q.kl_divergence;
    point.label = row.method;
    point.series = series_of(row.method);
    points.push_back(std::move(point));
  }
  return points;
}

void find_front(PointPanel& panel) {
  for (size_t i = 0; i < panel.points.size(); ++i) {
    PlotPoint& p = panel.points[i];
    p.faded = std::ranges::any_of(panel.points, [&](const PlotPoint& q) {
      return (q.x < p.x && q.y <= p.y) || (q.x <= p.x && q.y < p.y);
    });
    if (!p.faded) panel.front.push_back(i);
  }
  std::ranges::sort(panel.front, {}, [&](size_t i) { return panel.points[i].x; });
}

// A panel a sheet on common axes: the twin's points stand where the model's would.
std::string panels_of(const std::vector<MethodSheet>& sheets) {
  std::vector<PointPanel> panels;
  double most_x = 0, least_y = 1e300, most_y = 0;
  for (const MethodSheet& sheet : sheets) {
    PointPanel panel;
    panel.title = sheet.title;
    panel.better_right = false;
    panel.x_title = "size of the files, MB";
    panel.y_title = "KL divergence from bf16, nats a token (log scale)";
    panel.points = points_of(sheet);
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
    panel.y = log_axis(least_y / 1.3, most_y * 1.3);
    find_front(panel);
    out += draw_points(panel);
  }
  return out;
}

std::string html_table(const MethodSheet& sheet) {
  std::string out = "<div class=\"scroll\"><table>";
  bool is_head = true;
  for (const auto& row : cells_of(sheet)) {
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

void add_speeds_elsewhere(const std::vector<Record>& records, std::vector<MethodRow>* rows) {
  for (MethodRow& row : *rows) {
    for (const Record& r : records) {
      if (r.cell != CellKey{row.method, "bf16", 1} || r.model_hash != row.record.model_hash ||
          r.cpu == row.record.cpu) {
        continue;
      }
      row.decode_elsewhere[r.cpu] = r.decode_tokens_per_second.median();
    }
  }
}

std::string methods_markdown(const std::vector<MethodSheet>& sheets) {
  std::string out;
  for (const MethodSheet& sheet : sheets) {
    out += fmt::format("## {}\n\n", sheet.title);
    bool is_head = true;
    for (const auto& row : cells_of(sheet)) {
      out += fmt::format("| {} |\n", fmt::join(row, " | "));
      if (is_head) {
        out += "| --- |";
        for (size_t i = 1; i < row.size(); ++i) out += " ---: |";
        out += '\n';
      }
      is_head = false;
    }
    out += fmt::format("\n{}\n\n", provenance(sheet));
  }
  return out + kMeaning + "\n";
}

std::string methods_page(const std::vector<MethodSheet>& sheets) {
  std::string out =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
      "<title>What each method costs</title><style>";
  out += kReportStyle;
  out += "</style></head><body><main><header><h1>What each method costs</h1></header>";
  out += "<figure><h2>Size against divergence</h2><p class=\"sub\">The dotted steps join the "
         "methods that no other beats in both; the faded ones are beaten by at least one.</p>"
         "<div class=\"panels\">";
  out += panels_of(sheets);
  out += fmt::format("</div><figcaption>{}</figcaption></figure>", escape_html(kMeaning));
  for (const MethodSheet& sheet : sheets) {
    out += fmt::format("<section><h2>{}</h2><p class=\"sub\">{}</p>{}</section>",
                       escape_html(sheet.title), escape_html(provenance(sheet)),
                       html_table(sheet));
  }
  return out + "</main></body></html>\n";
}

}  // namespace tandem
