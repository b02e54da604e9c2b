#include "study/figure_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tandem {

const char* const kSolidAndHatched =
    "<span><svg class=\"s0\" viewBox=\"0 0 26 12\"><rect class=\"b\" width=\"26\" "
    "height=\"12\"/></svg>"
    "KV cache in bf16</span><span><svg class=\"s0\" viewBox=\"0 0 26 12\"><rect class=\"s0 h\" "
    "x=\".5\" "
    "y=\".5\" width=\"25\" height=\"11\"/></svg>KV cache in fewer bits</span>";
const char* const kFilledAndOpen =
    "<span><svg class=\"s0\" viewBox=\"0 0 26 12\"><circle class=\"fm\" cx=\"13\" cy=\"6\" "
    "r=\"5\"/></svg>"
    "KV cache in bf16</span><span><svg class=\"s0\" viewBox=\"0 0 26 12\"><path class=\"om\" "
    "d=\"M13 1l5 5l-5 5l-5 -5z\"/></svg>KV cache in fewer bits</span>";

double megabytes(uint64_t bytes) { return static_cast<double>(bytes) * 1e-6; }

Interval range_of(const Samples& samples) {
  const auto [low, high] = std::minmax_element(samples.values.begin(), samples.values.end());
  return {*low, *high};
}

std::string count_note(const StudyGrid& grid, const Samples Record::*samples) {
  size_t least = SIZE_MAX, most = 0;
  for (const auto& variant : grid.variants) {
    for (const auto& kv : grid.kvs) {
      for (const int64_t batch : grid.batches) {
        const Record* r = grid.find(variant, kv, batch);
        if (r == nullptr || !is_measured(r->*samples)) continue;
        least = std::min(least, (r->*samples).values.size());
        most = std::max(most, (r->*samples).values.size());
      }
    }
  }
  if (most == 0) return "";
  const std::string n =
      least == most ? fmt::format("n = {}", most) : fmt::format("n = {} to {}", least, most);
  return fmt::format("Bars are medians; {} runs a cell{}.", n,
                     most > 1 ? ", all in one process; whiskers run from the slowest to the "
                                "fastest of them and do not hold what differs from one process "
                                "to the next"
                              : "");
}

std::vector<BarGroup> by_variant(const StudyGrid& grid, int64_t batch, const MakeBar& make) {
  std::vector<BarGroup> groups;
  for (const auto& variant : grid.variants) {
    BarGroup group{variant, grid.series(variant), {}};
    for (const auto& kv : grid.kvs) {
      const Record* r = grid.find(variant, kv, batch);
      if (r == nullptr) continue;
      Bar bar = make(*r);
      bar.label = fmt::format("KV {}", clip_text(kv, 8));
      bar.hatched = kv != kReferenceName;
      group.bars.push_back(std::move(bar));
    }
    if (!group.bars.empty()) groups.push_back(std::move(group));
  }
  return groups;
}

std::vector<BarGroup> by_batch(const StudyGrid& grid, const std::string& kv, const MakeBar& make) {
  std::vector<BarGroup> groups;
  for (const auto& variant : grid.variants) {
    BarGroup group{variant, grid.series(variant), {}};
    for (const int64_t batch : grid.batches) {
      const Record* r = grid.find(variant, kv, batch);
      if (r == nullptr) continue;
      Bar bar = make(*r);
      bar.label = fmt::format("batch {}", batch);
      bar.hatched = kv != kReferenceName;
      group.bars.push_back(std::move(bar));
    }
    if (!group.bars.empty()) groups.push_back(std::move(group));
  }
  return groups;
}

Bar not_measured(std::string why) {
  Bar bar;
  bar.value_label = std::move(why);
  return bar;
}

Bar sample_bar(const Record& record, const Samples& samples, double scale,
               const std::string& more) {
  if (!is_measured(samples)) return not_measured();
  Bar bar;
  bar.segments = {samples.median() * scale};
  if (samples.values.size() > 1) {
    const Interval range = range_of(samples);
    bar.whisker = Interval{range.low * scale, range.high * scale};
  }
  bar.value_label = format_number(bar.segments[0]) + more;
  bar.noisy = record.noisy;
  return bar;
}

static bool has_bars(const BarPanel& panel) {
  for (const BarGroup& group : panel.groups) {
    for (const Bar& bar : group.bars) {
      if (!bar.segments.empty()) return true;
    }
  }
  return false;
}

void share_axis(std::vector<BarPanel>& panels) {
  std::erase_if(panels, [](const BarPanel& panel) { return !has_bars(panel); });
  double low = 1e300, high = -1e300;
  for (const BarPanel& panel : panels) {
    if (panel.limit) high = std::max(high, *panel.limit);
    for (const BarGroup& group : panel.groups) {
      for (const Bar& bar : group.bars) {
        if (bar.segments.empty()) continue;
        double sum = 0;
        for (const double part : bar.segments) sum += part;
        low = std::min({low, sum, bar.whisker ? bar.whisker->low : sum});
        high = std::max({high, sum, bar.whisker ? bar.whisker->high : sum, bar.tick.value_or(sum)});
      }
    }
  }
  for (BarPanel& panel : panels) {
    panel.axis = panel.dots ? linear_axis(low, high) : cut_axis(linear_axis(0, high), high);
  }
}

void add_panels(Figure& figure, const std::vector<BarPanel>& panels) {
  figure.columns = {"Panel", "Variant", "Bar", "Value", "Whisker low", "Whisker high"};
  for (std::string& drawing : draw_bars(panels)) figure.panels.push_back(std::move(drawing));
  for (const BarPanel& panel : panels) {
    for (const BarGroup& group : panel.groups) {
      for (const Bar& bar : group.bars) {
        figure.rows.push_back({panel.title + " (" + panel.axis_title + ")", group.name, bar.label,
                               bar.value_label + (bar.noisy ? " noisy" : ""),
                               bar.whisker ? format_number(bar.whisker->low, 4) : "",
                               bar.whisker ? format_number(bar.whisker->high, 4) : ""});
      }
    }
  }
}

std::string batch_title(int64_t batch) {
  return batch == 1 ? "Batch 1: one user" : fmt::format("Batch {}: {} users at once", batch, batch);
}

std::string named(const StudyGrid& grid, const CellKey& cell) {
  return grid.kvs.size() < 2 ? cell.variant : cell.variant + " with " + cell.kv + " KV";
}

Bar value_bar(std::optional<double> value, std::optional<double> error, int digits,
              const char* unit) {
  if (!value || !std::isfinite(*value)) return not_measured("reference");
  Bar bar;
  bar.segments = {*value};
  if (error && std::isfinite(*error) && *error > 0)
    bar.whisker = Interval{*value - *error, *value + *error};
  bar.value_label = format_number(*value, digits) + unit;
  return bar;
}

}  // namespace tandem
