#include "study/report_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "study/svg_plot.h"

namespace tandem {
namespace {

constexpr const char* kReferenceName = "bf16";
constexpr const char* kSolidAndHatched =
    "<span><svg class=\"s0\" viewBox=\"0 0 26 12\"><rect class=\"b\" width=\"26\" "
    "height=\"12\"/></svg>"
    "KV cache in bf16</span><span><svg class=\"s0\" viewBox=\"0 0 26 12\"><rect class=\"s0 h\" "
    "x=\".5\" "
    "y=\".5\" width=\"25\" height=\"11\"/></svg>KV cache in int8</span>";
constexpr const char* kFilledAndOpen =
    "<span><svg class=\"s0\" viewBox=\"0 0 26 12\"><circle class=\"fm\" cx=\"13\" cy=\"6\" "
    "r=\"5\"/></svg>"
    "KV cache in bf16</span><span><svg class=\"s0\" viewBox=\"0 0 26 12\"><path class=\"om\" "
    "d=\"M13 1l5 5l-5 5l-5 -5z\"/></svg>KV cache in int8</span>";

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

using MakeBar = std::function<Bar(const Record&)>;

// One group a variant, one bar a KV type.
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

// One group a variant, one bar a batch.
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

Bar not_measured(std::string why = "not measured") {
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

bool has_bars(const BarPanel& panel) {
  for (const BarGroup& group : panel.groups) {
    for (const Bar& bar : group.bars) {
      if (!bar.segments.empty()) return true;
    }
  }
  return false;
}

// Gives all panels one axis, from zero unless they are dots; drops panels without a measured bar.
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

// For a title: the KV type stands only where there are several.
std::string named(const StudyGrid& grid, const CellKey& cell) {
  return grid.kvs.size() < 2 ? cell.variant : cell.variant + " with " + cell.kv + " KV";
}

// The best cell at a batch that is not of the reference variant, by the median of `samples`.
const Record* fastest(const StudyGrid& grid, int64_t batch, const Samples Record::*samples) {
  const Record* best = nullptr;
  for (const auto& variant : grid.variants) {
    if (variant == kReferenceName) continue;
    for (const auto& kv : grid.kvs) {
      const Record* r = grid.find(variant, kv, batch);
      if (r == nullptr || !is_measured(r->*samples)) continue;
      if (best == nullptr || (r->*samples).median() > (best->*samples).median()) best = r;
    }
  }
  return best;
}

std::string speed_title(const StudyGrid& grid, const Samples Record::*samples, const char* verb,
                        const char* otherwise) {
  const int64_t batch = grid.batches.front();
  const Record* best = fastest(grid, batch, samples);
  const Record* base = grid.reference(batch);
  if (best == nullptr || base == nullptr || !is_measured(base->*samples)) return otherwise;
  const double ratio = (best->*samples).median() / (base->*samples).median();
  if (ratio <= 1) return fmt::format("Nothing {} faster than bf16 at batch {}", verb, batch);
  return fmt::format("At batch {}, {} {} {} as fast as bf16", batch, named(grid, best->cell), verb,
                     format_ratio(ratio));
}

Figure decode_figure(const StudyGrid& grid) {
  Figure figure;
  figure.title =
      speed_title(grid, &Record::decode_tokens_per_second, "decodes", "Decode throughput");
  figure.subtitle =
      "Tokens generated a second, over all sequences of a batch. The factor is the speed-up over "
      "bf16 "
      "weights with a bf16 KV cache at the same batch.";
  figure.key = kSolidAndHatched;
  std::vector<BarPanel> panels;
  for (const int64_t batch : grid.batches) {
    BarPanel panel;
    panel.title = batch_title(batch);
    panel.axis_title = "decoded tokens/s, from zero";
    const Record* base = grid.reference(batch);
    panel.groups = by_variant(grid, batch, [&](const Record& r) {
      std::string more;
      if (&r == base) {
        more = " (= 1\u00d7)";
      } else if (base != nullptr && is_measured(base->decode_tokens_per_second) &&
                 is_measured(r.decode_tokens_per_second)) {
        more = " \u00b7 " + format_ratio(r.decode_tokens_per_second.median() /
                                         base->decode_tokens_per_second.median());
      }
      return sample_bar(r, r.decode_tokens_per_second, 1, more);
    });
    panels.push_back(std::move(panel));
  }
  share_axis(panels);
  add_panels(figure, panels);
  figure.note = count_note(grid, &Record::decode_tokens_per_second) + " All panels share one axis.";
  return figure;
}

Figure prefill_figure(const StudyGrid& grid) {
  Figure figure;
  figure.title =
      speed_title(grid, &Record::prefill_tokens_per_second, "reads a prompt", "Prefill throughput");
  figure.subtitle =
      "Prompt tokens read a second, and the time from handing in a batch to the first token of its "
      "last "
      "sequence, which grows with the batch because the prompts share the processor.";
  figure.key = kSolidAndHatched;
  std::vector<BarPanel> speed, wait;
  for (const auto& kv : grid.kvs) {
    BarPanel panel;
    panel.title = fmt::format("Prefill, KV {}", clip_text(kv, 24));
    panel.axis_title = "prompt tokens/s, from zero";
    panel.groups = by_batch(grid, kv, [](const Record& r) {
      return sample_bar(r, r.prefill_tokens_per_second, 1, "");
    });
    speed.push_back(std::move(panel));
  }
  for (const auto& kv : grid.kvs) {
    BarPanel panel;
    panel.title = fmt::format("Time to first token, KV {}", clip_text(kv, 24));
    panel.axis_title = "milliseconds, from zero; shorter is better";
    panel.groups = by_batch(
        grid, kv, [](const Record& r) { return sample_bar(r, r.first_token_seconds, 1e3, ""); });
    wait.push_back(std::move(panel));
  }
  share_axis(speed);
  share_axis(wait);
  add_panels(figure, speed);
  const auto rows = std::move(figure.rows);
  figure.rows.clear();
  add_panels(figure, wait);
  figure.rows.insert(figure.rows.begin(), rows.begin(), rows.end());
  figure.note = count_note(grid, &Record::prefill_tokens_per_second) +
                " Panels of one quantity share one axis.";
  return figure;
}

std::string memory_title(const StudyGrid& grid) {
  const Record* base = grid.reference(grid.batches.front());
  const Record* least = nullptr;
  for (const auto& variant : grid.variants) {
    for (const auto& kv : grid.kvs) {
      const Record* r = grid.find(variant, kv, grid.batches.front());
      if (r == nullptr || r->peak_resident_bytes == 0 || variant == kReferenceName) continue;
      if (least == nullptr || r->peak_resident_bytes < least->peak_resident_bytes) least = r;
    }
  }
  if (base == nullptr || least == nullptr || base->peak_resident_bytes == 0) return "Memory";
  return fmt::format("At its peak, {} holds {} % of the memory that bf16 does",
                     named(grid, least->cell),
                     format_number(100.0 * static_cast<double>(least->peak_resident_bytes) /
                                       static_cast<double>(base->peak_resident_bytes),
                                   2));
}

Figure memory_figure(const StudyGrid& grid) {
  Figure figure;
  figure.title = memory_title(grid);
  figure.subtitle =
      "Bytes that each configuration holds: weights, KV cache and workspace stacked, and the "
      "highest "
      "resident memory of the process as a tick and a number.";
  figure.key =
      "<span><svg class=\"s0\" viewBox=\"0 0 26 12\"><rect class=\"b g0\" width=\"26\" "
      "height=\"12\"/></svg>"
      "weights</span><span><svg class=\"s0\" viewBox=\"0 0 26 12\"><rect class=\"b g1\" "
      "width=\"26\" "
      "height=\"12\"/></svg>KV cache</span><span><svg class=\"s0\" viewBox=\"0 0 26 12\"><rect "
      "class=\"b g2\" "
      "width=\"26\" height=\"12\"/></svg>workspace</span><span><svg viewBox=\"0 0 26 12\"><path "
      "class=\"tk\" "
      "d=\"M13 0v12\"/></svg>peak resident memory</span>";
  std::vector<BarPanel> panels;
  for (const int64_t batch : grid.batches) {
    BarPanel panel;
    panel.title = batch_title(batch);
    panel.axis_title = "MB (10\u2076 bytes), from zero";
    panel.groups = by_variant(grid, batch, [](const Record& r) {
      if (r.weight_bytes == 0 && r.peak_resident_bytes == 0) return not_measured();
      Bar bar;
      bar.segments = {megabytes(r.weight_bytes), megabytes(r.kv_bytes),
                      megabytes(r.workspace_bytes)};
      if (r.peak_resident_bytes > 0) bar.tick = megabytes(r.peak_resident_bytes);
      bar.value_label = bar.tick ? format_number(*bar.tick) : "no peak";
      return bar;
    });
    for (BarGroup& group : panel.groups) {
      for (Bar& bar : group.bars) bar.hatched = false;
    }
    panels.push_back(std::move(panel));
  }
  share_axis(panels);
  figure.panels = draw_bars(panels);
  figure.columns = {"Panel", "Variant", "KV", "Weights MB", "KV MB", "Workspace MB", "Peak MB"};
  for (const BarPanel& panel : panels) {
    for (const BarGroup& group : panel.groups) {
      for (const Bar& bar : group.bars) {
        if (bar.segments.empty()) continue;
        figure.rows.push_back({panel.title, group.name, bar.label,
                               format_number(bar.segments[0], 4), format_number(bar.segments[1]),
                               format_number(bar.segments[2]), bar.value_label});
      }
    }
  }
  figure.note =
      "One child process a cell, n = 1: bytes are counted, the peak is read from the system. A "
      "peak "
      "above the stack is the program itself and what loading needed. All panels share one axis.";
  return figure;
}

BarPanel quality_panel(const StudyGrid& grid, const MakeBar& make) {
  BarPanel panel;
  for (const auto& variant : grid.variants) {
    BarGroup group{variant, grid.series(variant), {}};
    for (const auto& kv : grid.kvs) {
      const Record* r = grid.quality(variant, kv);
      if (r == nullptr) continue;
      Bar bar = make(*r);
      bar.label = fmt::format("KV {}", clip_text(kv, 8));
      bar.hatched = kv != kReferenceName;
      group.bars.push_back(std::move(bar));
    }
    if (!group.bars.empty()) panel.groups.push_back(std::move(group));
  }
  return panel;
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

Figure quality_figure(const StudyGrid& grid) {
  Figure figure;
  figure.title = "What the smaller numbers cost in quality";
  figure.subtitle =
      "Three views of the same text: how well each configuration predicts it (perplexity, lower is "
      "better), "
      "how far its distribution is from that of bf16 (KL divergence, lower is better), and how "
      "often both "
      "name the same most likely token (higher is better).";
  figure.key = kFilledAndOpen;
  std::vector<BarPanel> perplexity(1), divergence(1), agreement(1);
  perplexity[0] = quality_panel(grid, [](const Record& r) {
    if (!(r.quality.perplexity > 0)) return not_measured();
    return value_bar(r.quality.perplexity, r.quality.perplexity_stderr, 4, "");
  });
  perplexity[0].title = "Perplexity";
  perplexity[0].axis_title = "perplexity, axis does not start at zero";
  perplexity[0].dots = true;
  divergence[0] = quality_panel(grid, [](const Record& r) {
    return value_bar(r.quality.kl_divergence, r.quality.kl_stderr, 3, "");
  });
  divergence[0].title = "KL divergence from bf16";
  divergence[0].axis_title = "nats a token, from zero";
  agreement[0] = quality_panel(grid, [](const Record& r) {
    if (!r.quality.top1_agreement) return not_measured("reference");
    return value_bar(100 * *r.quality.top1_agreement, std::nullopt, 4, " %");
  });
  agreement[0].title = "Same most likely token as bf16";
  agreement[0].axis_title = "% of positions, axis does not start at zero";
  agreement[0].dots = true;
  int64_t tokens = 0;
  for (const auto& variant : grid.variants) {
    for (const auto& kv : grid.kvs) {
      if (const Record* r = grid.quality(variant, kv))
        tokens = std::max(tokens, r->quality.scored_tokens);
    }
  }
  for (auto* panels : {&perplexity, &divergence, &agreement}) {
    share_axis(*panels);
    add_panels(figure, *panels);
  }
  if (figure.panels.empty()) figure.subtitle = "Quality was not measured in these records.";
  figure.note = fmt::format(
      "n = {} scored tokens. Whiskers: one standard error either way, over tokens of one text; "
      "differences "
      "between configurations on the same text are surer than the whiskers of perplexity suggest.",
      format_count(tokens));
  return figure;
}

bool better_or_equal(const PlotPoint& a, const PlotPoint& b, bool right) {
  return (right ? a.x >= b.x : a.x <= b.x) && a.y <= b.y;
}

// Fades the points that another point beats in both; gives the others in the order of x.
void find_front(PointPanel& panel) {
  for (size_t i = 0; i < panel.points.size(); ++i) {
    PlotPoint& p = panel.points[i];
    for (const PlotPoint& q : panel.points) {
      const bool strictly = q.x != p.x || q.y != p.y;
      p.faded = p.faded || (strictly && better_or_equal(q, p, panel.better_right));
    }
    if (!p.faded) panel.front.push_back(i);
  }
  std::sort(panel.front.begin(), panel.front.end(),
            [&](size_t a, size_t b) { return panel.points[a].x < panel.points[b].x; });
}

void fit_axes(PointPanel& panel) {
  double x0 = 1e300, x1 = -1e300, y0 = 1e300, y1 = -1e300;
  for (const PlotPoint& p : panel.points) {
    x0 = std::min({x0, p.x, p.x_whisker ? p.x_whisker->low : p.x});
    x1 = std::max({x1, p.x, p.x_whisker ? p.x_whisker->high : p.x});
    y0 = std::min({y0, p.y, p.y_whisker ? p.y_whisker->low : p.y});
    y1 = std::max({y1, p.y, p.y_whisker ? p.y_whisker->high : p.y});
  }
  // A pixel column of room keeps outer points off the frame.
  const double x_room = std::max((x1 - x0) * 0.06, x1 * 0.02),
               y_room = std::max((y1 - y0) * 0.06, y1 * 0.01);
  if (x0 > 0 && x1 / x0 > 20) {
    panel.x = log_axis(x0 / 1.2, x1 * 1.2);
    panel.x_title += " (log scale)";
  } else {
    panel.x = linear_axis(std::max(0.0, x0 - x_room), x1 + x_room);
  }
  panel.y = linear_axis(std::max(0.0, y0 - y_room), y1 + y_room, 6);
}

// Perplexity against `x_of`, which gives the position and its whisker, at one batch.
using PlaceX = std::function<std::optional<double>(const Record&, std::optional<Interval>&)>;
PointPanel trade_panel(const StudyGrid& grid, int64_t batch,
                       const std::optional<CellKey>& recommended, const PlaceX& place) {
  PointPanel panel;
  panel.title = batch_title(batch);
  panel.y_title = "perplexity, lower is better";
  for (const auto& variant : grid.variants) {
    for (const auto& kv : grid.kvs) {
      const Record* r = grid.find(variant, kv, batch);
      const Record* q = grid.quality(variant, kv);
      if (r == nullptr || q == nullptr) continue;
      PlotPoint point;
      const auto x = place(*r, point.x_whisker);
      if (!x || !std::isfinite(q->quality.perplexity)) continue;
      point.x = *x;
      point.y = q->quality.perplexity;
      const double error = q->quality.perplexity_stderr;
      if (std::isfinite(error) && error > 0)
        point.y_whisker = Interval{point.y - error, point.y + error};
      point.label =
          clip_text(variant, 18) + (kv == kReferenceName ? "" : " \u00b7 KV " + clip_text(kv, 8));
      point.series = grid.series(variant);
      point.open = kv != kReferenceName;
      point.ringed = recommended && *recommended == r->cell;
      panel.points.push_back(std::move(point));
    }
  }
  return panel;
}

Figure trade_figure(const StudyGrid& grid, const std::optional<CellKey>& recommended, bool memory) {
  Figure figure;
  figure.key = kFilledAndOpen;
  if (recommended) {
    figure.key +=
        "<span><svg class=\"s0\" viewBox=\"0 0 26 12\"><circle class=\"rg\" cx=\"13\" cy=\"6\" "
        "r=\"5\"/></svg>recommended</span>";
  }
  figure.columns = {"Panel", "Configuration", memory ? "Peak MB" : "Decoded tokens/s", "Perplexity",
                    "On the front"};
  std::set<int64_t> batches{grid.batches.front(), grid.batches.back()};
  if (recommended && std::count(grid.batches.begin(), grid.batches.end(), recommended->batch) > 0) {
    batches.insert(recommended->batch);
  }
  size_t on_front = 0, in_all = 0;
  for (const int64_t batch : batches) {
    PointPanel panel =
        trade_panel(grid, batch, recommended,
                    [&](const Record& r, std::optional<Interval>& w) -> std::optional<double> {
                      if (memory) {
                        if (r.peak_resident_bytes == 0) return std::nullopt;
                        return megabytes(r.peak_resident_bytes);
                      }
                      if (!is_measured(r.decode_tokens_per_second)) return std::nullopt;
                      if (r.decode_tokens_per_second.values.size() > 1)
                        w = range_of(r.decode_tokens_per_second);
                      return r.decode_tokens_per_second.median();
                    });
    if (panel.points.empty()) continue;
    panel.better_right = !memory;
    panel.x_title = memory ? "peak resident memory, MB" : "decoded tokens/s";
    find_front(panel);
    fit_axes(panel);
    figure.panels.push_back(draw_points(panel));
    on_front += panel.front.size();
    in_all += panel.points.size();
    for (const PlotPoint& p : panel.points) {
      figure.rows.push_back({panel.title, p.label, format_number(p.x, 4), format_number(p.y, 4),
                             p.faded ? "no" : "yes"});
    }
  }
  const char* subject = memory ? "Memory" : "Throughput";
  if (figure.panels.empty()) {
    figure.title = fmt::format("{} against quality", subject);
    figure.subtitle =
        "Not drawn: it needs both perplexity and this quantity for at least one cell.";
    return figure;
  }
  figure.title = fmt::format("{} against quality: {} of {} points lie on the front", subject,
                             on_front, in_all);
  figure.subtitle =
      "The dotted steps join the configurations that no other beats in both respects; the faded "
      "ones are "
      "beaten by at least one.";
  figure.note =
      memory ? "Vertical whiskers: one standard error of perplexity over tokens. Memory n = 1. "
               "Axes do not start at zero."
             : "Horizontal whiskers: slowest to fastest run; vertical: one standard error of "
               "perplexity over tokens. The front regards medians only. Axes do not start at zero.";
  return figure;
}

Figure energy_figure(const StudyGrid& grid) {
  Figure figure;
  figure.title = "Energy of a decoded token";
  std::vector<BarPanel> panels;
  std::string source;
  for (const int64_t batch : grid.batches) {
    BarPanel panel;
    panel.title = batch_title(batch);
    panel.axis_title = "joules a token, from zero";
    panel.groups = by_variant(grid, batch, [&](const Record& r) {
      if (source.empty() || r.joules_per_token) source = r.energy_source;
      if (!r.joules_per_token) return not_measured();
      return value_bar(r.joules_per_token, std::nullopt, 3, "");
    });
    panels.push_back(std::move(panel));
  }
  share_axis(panels);
  add_panels(figure, panels);
  if (figure.panels.empty()) {
    figure.title = "Energy was not measured";
    figure.subtitle = source.empty() ? "The records name no meter." : "Reason: " + source + ".";
    if (const std::string known = "Reason: not measured: "; figure.subtitle.starts_with(known)) {
      figure.subtitle = "Reason: " + figure.subtitle.substr(known.size());
    }
    figure.columns.clear();
    figure.rows.clear();
    return figure;
  }
  figure.key = kSolidAndHatched;
  figure.subtitle =
      "Energy over a window of steady decoding, divided by the tokens decoded in it. Meter: " +
      source.substr(0, source.rfind(", ")) + ".";
  figure.note = "n = 1 window a cell, so there are no whiskers. All panels share one axis.";
  return figure;
}

std::optional<Figure> limit_figure(const StudyGrid& grid) {
  std::optional<double> limit;
  std::vector<BarPanel> panels;
  for (const int64_t batch : grid.batches) {
    BarPanel panel;
    panel.title = batch_title(batch);
    panel.axis_title = "GB/s of weights read, from zero";
    panel.groups = by_variant(grid, batch, [&](const Record& r) {
      if (!limit && r.extra.is_object() && r.extra.contains("read_gbps_limit") &&
          r.extra["read_gbps_limit"].is_number()) {
        limit = r.extra["read_gbps_limit"].get<double>();
      }
      if (r.step_read_bytes == 0) return not_measured();
      const double steps_per_read = static_cast<double>(r.step_read_bytes) * 1e-9 /
                                    static_cast<double>(std::max<int64_t>(batch, 1));
      std::string more;
      if (limit && *limit > 0 && is_measured(r.decode_tokens_per_second)) {
        more = fmt::format(" \u00b7 {:.0f} %",
                           100 * steps_per_read * r.decode_tokens_per_second.median() / *limit);
      }
      return sample_bar(r, r.decode_tokens_per_second, steps_per_read, more);
    });
    panels.push_back(std::move(panel));
  }
  if (!limit || !std::isfinite(*limit) || *limit <= 0) return std::nullopt;
  for (BarPanel& panel : panels) {
    panel.limit = limit;
    panel.limit_label = fmt::format("limit {} GB/s", format_number(*limit));
  }
  share_axis(panels);
  Figure figure;
  figure.title = "How near decoding comes to the speed of memory";
  figure.subtitle =
      "A decode step reads every weight once, so steps a second times bytes a step is a rate that "
      "the memory "
      "must sustain. The dashed line is the read rate measured on this machine; what stays far "
      "below it is held "
      "by arithmetic, not by memory.";
  figure.key = kSolidAndHatched;
  add_panels(figure, panels);
  figure.note = count_note(grid, &Record::decode_tokens_per_second) +
                " Reads of the KV cache are not counted. All panels share one axis.";
  if (figure.panels.empty()) return std::nullopt;
  return figure;
}

}  // namespace

std::vector<Figure> make_figures(const StudyGrid& grid, const std::optional<CellKey>& recommended) {
  if (grid.batches.empty()) return {};
  std::vector<Figure> figures;
  figures.push_back(decode_figure(grid));
  figures.push_back(prefill_figure(grid));
  figures.push_back(memory_figure(grid));
  figures.push_back(quality_figure(grid));
  figures.push_back(trade_figure(grid, recommended, false));
  figures.push_back(trade_figure(grid, recommended, true));
  figures.push_back(energy_figure(grid));
  if (auto limit = limit_figure(grid)) figures.push_back(std::move(*limit));
  return figures;
}

}  // namespace tandem
