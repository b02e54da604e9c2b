// Throughput, memory, energy and the limit of the machine.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "study/figure_parts.h"

namespace tandem {
namespace {

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

}  // namespace

Figure decode_figure(const StudyGrid& grid) {
  Figure figure;
  figure.title =
      speed_title(grid, &Record::decode_tokens_per_second, "decodes", "Decode throughput");
  figure.subtitle =
      "Tokens generated a second, over all sequences of a batch. The factor is the speed-up over "
      "bf16 weights with a bf16 KV cache at the same batch.";
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
      "last sequence, which grows with the batch because the prompts share the processor.";
  figure.key = kSolidAndHatched;
  const auto panels_of = [&](const char* quantity, const char* axis_title, const MakeBar& make) {
    std::vector<BarPanel> panels;
    for (const auto& kv : grid.kvs) {
      BarPanel panel;
      panel.title = fmt::format("{}, KV {}", quantity, clip_text(kv, 24));
      panel.axis_title = axis_title;
      panel.groups = by_batch(grid, kv, make);
      panels.push_back(std::move(panel));
    }
    share_axis(panels);
    return panels;
  };
  const std::vector<BarPanel> speed =
      panels_of("Prefill", "prompt tokens/s, from zero",
                [](const Record& r) { return sample_bar(r, r.prefill_tokens_per_second, 1, ""); });
  const std::vector<BarPanel> wait =
      panels_of("Time to first token", "milliseconds, from zero; shorter is better",
                [](const Record& r) { return sample_bar(r, r.first_token_seconds, 1e3, ""); });
  add_panels(figure, speed);
  add_panels(figure, wait);
  figure.note = count_note(grid, &Record::prefill_tokens_per_second) +
                " Panels of one quantity share one axis.";
  return figure;
}

static std::string memory_title(const StudyGrid& grid) {
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

}  // namespace tandem
