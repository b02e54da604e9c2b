// Quality, and quality against speed and memory.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "study/figure_parts.h"

namespace tandem {
namespace {

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

}  // namespace

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
    if (panels == &agreement) {
      for (BarPanel& panel : *panels) panel.axis = cut_axis(panel.axis, 100);  // per cent
    }
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

namespace {

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

}  // namespace

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

}  // namespace tandem
