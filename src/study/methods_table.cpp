#include "study/methods_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "kernels/device.h"
#include "study/figure_parts.h"

namespace tandem {
namespace {

constexpr size_t kTextColumns = 100;

using Cells = std::vector<std::vector<std::string>>;  // the head first

std::string number(std::optional<double> value, int decimals, double scale = 1) {
  if (!value || !std::isfinite(*value)) return "-";
  return fmt::format("{:.{}f}", scale * *value, decimals);
}

std::string perplexity_text(double value) {
  if (!std::isfinite(value)) return "-";
  return value < 1e5 ? fmt::format("{:.{}f}", value, value < 1000 ? 2 : 0)
                     : fmt::format("{:.1e}", value);
}

// exp(log_ratio) - 1 in percent and its error; a factor where that is out of proportion.
std::string perplexity_change(const Quality& q) {
  if (!q.log_ratio || !std::isfinite(*q.log_ratio)) return "-";
  const double ratio = std::exp(*q.log_ratio);
  if (ratio >= 10) return fmt::format("x{:.3g}", ratio);
  const int decimals = ratio < 2 ? 1 : 0;
  return fmt::format("{:+.{}f}\u00b1{}", 100 * (ratio - 1), decimals,
                     number(q.log_ratio_stderr, decimals, 100 * ratio));
}

std::string speed_text(const Record& r) {
  const double median = r.decode_tokens_per_second.median();
  if (!std::isfinite(median)) return "-";
  return fmt::format("{:.{}f}\u00b1{:.0f}%{}", median, median < 100 ? 1 : 0,
                     100 * r.decode_tokens_per_second.spread(), r.noisy ? "*" : "");
}

double layer_bits(const Record& r) { return r.extra.value(kLayerBitsKey, std::nan("")); }

// A processor of a sheet's speeds and a record that was measured on it.
struct Processor {
  std::string label;  // "CPU", "GPU 2"
  const Record* record = nullptr;
};

std::vector<Processor> processors_of(const MethodSheet& sheet) {
  std::vector<Processor> processors;
  int num[2] = {0, 0};
  const auto add = [&](const Record& r) {
    if (r.decode_tokens_per_second.values.empty()) return;
    if (std::ranges::any_of(processors,
                            [&](const Processor& p) { return p.record->cpu == r.cpu; })) {
      return;
    }
    const bool is_device = names_device(r.isa);
    const std::string name = is_device ? "GPU" : "CPU";
    processors.push_back(
        {++num[is_device] == 1 ? name : fmt::format("{} {}", name, num[is_device]), &r});
  };
  for (const MethodRow& row : sheet.rows) add(row.record);
  for (const MethodRow& row : sheet.rows) {
    for (const Record& r : row.elsewhere) add(r);
  }
  return processors;
}

const Record* record_on(const MethodRow& row, const Processor& processor) {
  if (row.record.cpu == processor.record->cpu) return &row.record;
  for (const Record& r : row.elsewhere) {
    if (r.cpu == processor.record->cpu) return &r;
  }
  return nullptr;
}

bool has_tasks(const MethodSheet& sheet) {
  return std::ranges::any_of(
      sheet.rows, [](const MethodRow& row) { return row.record.quality.task_hits.has_value(); });
}

void add_task_cells(const MethodSheet& sheet, const Quality& q, std::vector<std::string>* cells) {
  const std::optional<std::string>& baseline = sheet.rows.front().record.quality.task_hits;
  cells->push_back(q.task_hits ? number(hit_rate(*q.task_hits).mean, 1, 100) : "-");
  if (!q.task_hits || !baseline || q.task_hits->size() != baseline->size() ||
      &q == &sheet.rows.front().record.quality) {
    cells->push_back("-");
    return;
  }
  const MeanError change = hit_change(*q.task_hits, *baseline);
  cells->push_back(fmt::format("{:+.1f}\u00b1{:.1f}", 100 * change.mean, 100 * change.error));
}

// Columns that a terminal shows: bytes that do not continue a character.
size_t width_of(std::string_view text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string wrapped(const std::string& text) {
  std::string out;
  size_t column = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (column != 0 && column + 1 + width_of(word) > kTextColumns) {
      out += '\n';
      column = 0;
    } else if (column != 0) {
      out += ' ';
      ++column;
    }
    out += word;
    column += width_of(word);
    at = end + 1;
  }
  return out + '\n';
}

std::string aligned(const Cells& table) {
  std::vector<size_t> widths(table[0].size(), 0);
  for (const auto& row : table) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  const size_t total = std::accumulate(widths.begin(), widths.end(), size_t{0});
  const size_t gap = total + 2 * (widths.size() - 1) <= kTextColumns ? 2 : 1;
  std::string out;
  for (const auto& row : table) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - width_of(row[i]), ' ');
      if (i != 0) out.append(gap, ' ');
      out += i == 0 ? row[i] : padding + row[i];
      if (i == 0 && row.size() > 1) out += padding;
    }
    out += '\n';
  }
  return out;
}

}  // namespace

const char* const kMethodsMeaning =
    "bits: of a weight of the layers' matrices, scales included. MB: the files that hold the "
    "weights. PPL: perplexity by protocol B; change: against the same model's bf16, in percent, "
    "with the error of the paired difference, or the factor. KL: nats a token from bf16 to the "
    "method. top-1: percent of equal first choices. HellaSwag: acc_norm in percent; change: in "
    "points, paired. CPU, GPU: tokens/s of decode at batch 1, the median of the runs \u00b1 the "
    "distance of their quartiles";

std::vector<MethodSheet> method_sheets(const std::vector<Record>& records) {
  std::vector<MethodSheet> sheets;
  for (const Record& record : records) {
    const std::string title = record.extra.value(kSheetKey, record.model_hash);
    auto sheet = std::ranges::find(sheets, title, &MethodSheet::title);
    if (sheet == sheets.end()) sheet = sheets.insert(sheets.end(), {title, {}});
    sheet->rows.push_back({record, {}});
  }
  return sheets;
}

void add_speeds_elsewhere(const std::vector<Record>& records, std::vector<MethodSheet>* sheets) {
  for (MethodSheet& sheet : *sheets) {
    for (MethodRow& row : sheet.rows) {
      for (const Record& r : records) {
        const bool is_same = r.cell == CellKey{row.record.cell.variant, "bf16", 1} &&
                             r.model_hash == row.record.model_hash;
        if (!is_same || r.cpu == row.record.cpu) continue;
        std::erase_if(row.elsewhere, [&](const Record& before) { return before.cpu == r.cpu; });
        row.elsewhere.push_back(r);
      }
    }
  }
}

MeanError hit_rate(const std::string& hits) {
  return hit_change(hits, std::string(hits.size(), '0'));
}

MeanError hit_change(const std::string& hits, const std::string& baseline) {
  CHECK(hits.size() == baseline.size(), "{} items, {} items", hits.size(), baseline.size());
  std::vector<double> differences;
  for (size_t i = 0; i < hits.size(); ++i) differences.push_back(hits[i] - baseline[i]);
  return mean_error(differences);
}

std::vector<std::vector<std::string>> method_cells(const MethodSheet& sheet) {
  const std::vector<Processor> processors = processors_of(sheet);
  const bool asks = has_tasks(sheet);
  Cells table = {{"method", "bits", "MB", "PPL", "change", "KL", "top-1"}};
  if (asks) table[0].insert(table[0].end(), {"HellaSwag", "change"});
  for (const Processor& p : processors) table[0].push_back(p.label);
  for (const MethodRow& row : sheet.rows) {
    const Quality& q = row.record.quality;
    std::vector<std::string> cells = {row.record.cell.variant,
                                      number(layer_bits(row.record), 2),
                                      number(megabytes(row.record.file_bytes), 1),
                                      perplexity_text(q.perplexity),
                                      perplexity_change(q),
                                      number(q.kl_divergence, 4),
                                      number(q.top1_agreement, 1, 100)};
    if (asks) add_task_cells(sheet, q, &cells);
    for (const Processor& p : processors) {
      const Record* record = record_on(row, p);
      cells.push_back(record == nullptr ? "-" : speed_text(*record));
    }
    table.push_back(std::move(cells));
  }
  return table;
}

std::vector<std::string> method_notes(const MethodSheet& sheet) {
  if (sheet.rows.empty()) return {"Nothing was measured."};
  const Record& first = sheet.rows.front().record;
  std::vector<std::string> notes = {fmt::format("source {}; tandem {}, commit {}.",
                                                first.model_hash, first.version, first.commit)};
  if (first.quality.scored_tokens != 0) {
    notes[0] =
        fmt::format("{} tokens of {} scored by {} on {}; ", first.quality.scored_tokens,
                    first.text_path.substr(first.text_path.rfind('/') + 1), first.isa, first.cpu) +
        notes[0];
  }
  if (first.quality.task_hits) {
    const auto items = first.quality.task_hits->size();
    notes[0] += fmt::format(" HellaSwag: {} items, bf16 {} \u00b1 {} %.", items,
                            number(hit_rate(*first.quality.task_hits).mean, 1, 100),
                            number(hit_rate(*first.quality.task_hits).error, 1, 100));
  }
  bool any_noisy = false;
  for (const Processor& p : processors_of(sheet)) {
    const Record& r = *p.record;
    notes.push_back(
        fmt::format("{}: {}{}, {} runs of {} tokens.", p.label, r.cpu,
                    names_device(r.isa) ? "" : fmt::format(", {} threads, {}", r.threads, r.isa),
                    r.decode_tokens_per_second.values.size(), r.new_tokens));
    for (const MethodRow& row : sheet.rows) {
      const Record* record = record_on(row, p);
      any_noisy |= record != nullptr && record->noisy;
    }
  }
  if (any_noisy) notes.emplace_back("* the runs spread by more than 10 %.");
  for (const MethodRow& row : sheet.rows) {
    std::vector<const Record*> records = {&row.record};
    for (const Record& r : row.elsewhere) records.push_back(&r);
    for (const Record* r : records) {
      if (!r->extra.contains(kNotRunKey)) continue;
      notes.push_back(fmt::format("{}: not run on {}: {}.", row.record.cell.variant, r->isa,
                                  r->extra.at(kNotRunKey).get<std::string>()));
    }
  }
  return notes;
}

std::string methods_text(const std::vector<MethodSheet>& sheets) {
  std::string out;
  for (const MethodSheet& sheet : sheets) {
    out += sheet.title + "\n" + aligned(method_cells(sheet));
    for (const std::string& note : method_notes(sheet)) out += wrapped(note);
    out += '\n';
  }
  return out + wrapped(kMethodsMeaning);
}

std::string methods_markdown(const std::vector<MethodSheet>& sheets) {
  std::string out;
  for (const MethodSheet& sheet : sheets) {
    out += fmt::format("## {}\n\n", sheet.title);
    bool is_head = true;
    for (const auto& row : method_cells(sheet)) {
      out += fmt::format("| {} |\n", fmt::join(row, " | "));
      if (is_head) {
        out += "| --- |";
        for (size_t i = 1; i < row.size(); ++i) out += " ---: |";
        out += '\n';
      }
      is_head = false;
    }
    for (const std::string& note : method_notes(sheet)) {
      out += '\n';
      out += wrapped(note);
    }
    out += '\n';
  }
  return out + wrapped(kMethodsMeaning);
}

}  // namespace tandem
