#include "cli/study_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>

#include "study/plan.h"

namespace tandem {
namespace {

std::string number(std::optional<double> value, int decimals) {
  if (!value || !std::isfinite(*value)) return "-";
  return fmt::format("{:.{}f}", *value, decimals);
}

auto place(const Record& record) {
  const auto& names = all_variants();
  return std::tuple(std::find(names.begin(), names.end(), record.cell.variant) - names.begin(),
                    record.cell.kv, record.cell.batch);
}

std::optional<double> baseline_decode(const std::vector<Record>& records, int64_t batch) {
  for (const Record& record : records) {
    if (record.cell == CellKey{kBaselineVariant, "bf16", batch}) {
      return record.decode_tokens_per_second.median();
    }
  }
  return std::nullopt;
}

}  // namespace

std::string study_table(std::vector<Record> records) {
  std::sort(records.begin(), records.end(),
            [](const Record& a, const Record& b) { return place(a) < place(b); });
  size_t name_width = 10;
  for (const Record& r : records) name_width = std::max(name_width, r.cell.variant.size());
  ++name_width;
  std::string text =
      fmt::format("{:<{}}{:<5}{:>5} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>13} {:>9} {:>8} {:>7}\n",
                  "variant", name_width, "KV", "batch", "prefill", "decode", "speed-up", "TTFT ms", "weights",
                  "peak MB", "J/token", "PPL", "KL", "top-1 %");
  bool any_noisy = false;
  for (const Record& r : records) {
    const double decode = r.decode_tokens_per_second.median();
    const std::optional<double> base = baseline_decode(records, r.cell.batch);
    const std::string speedup = base ? number(decode / *base, 2) + "x" : "-";
    const Quality& q = r.quality;
    const auto percent = q.top1_agreement ? std::optional(100 * *q.top1_agreement) : std::nullopt;
    any_noisy |= r.noisy;
    text += fmt::format(
        "{:<{}}{:<5}{:>5} {:>9} {:>8}{} {:>8} {:>8} {:>8} {:>8} {:>13} {:>9} {:>8} {:>7}\n",
        r.cell.variant, name_width, r.cell.kv, r.cell.batch, number(r.prefill_tokens_per_second.median(), 1),
        number(decode, 1), r.noisy ? "*" : " ", speedup,
        number(1e3 * r.first_token_seconds.median(), 1),
        number(static_cast<double>(r.weight_bytes) * 1e-6, 1),
        number(static_cast<double>(r.peak_resident_bytes) * 1e-6, 1),
        r.joules_per_token ? number(r.joules_per_token, 3) : "not measured",
        number(q.perplexity, 3), number(q.kl_divergence, 4), number(percent, 1));
  }
  text +=
      "prefill and decode in tokens/s over the whole batch; weights and peak resident in MB; "
      "speed-up, KL and top-1 against bf16 with bf16 KV\n";
  if (any_noisy) text += "* noisy: the runs still spread by more than 10 % after reruns\n";
  return text;
}

std::vector<std::pair<std::string, std::string>> grouped_advice(const Ranking& ranking) {
  std::vector<std::pair<std::string, std::string>> groups;
  for (const Advice& advice : ranking.advice) {
    const auto same = std::find_if(groups.begin(), groups.end(),
                                   [&](const auto& group) { return group.second == advice.text; });
    if (same == groups.end()) {
      groups.emplace_back(goal_name(advice.goal), advice.text);
    } else {
      same->first += std::string(", ") + goal_name(advice.goal);
    }
  }
  return groups;
}

std::string advice_text(const Ranking& ranking, const QualityFloor& floor) {
  std::string text = fmt::format(
      "Quality floor: at least {:.1f} % of bf16's first choices, perplexity at most {:+.1f} %.\n",
      100 * floor.min_top1_agreement, 100 * floor.max_perplexity_rise);
  for (const auto& [goals, advice] : grouped_advice(ranking)) {
    text += fmt::format("{}: {}\n", goals, advice);
  }
  for (const Excluded& excluded : ranking.excluded) {
    text += fmt::format("excluded: {} with {} KV: {}\n", excluded.cell.variant, excluded.cell.kv,
                        excluded.reason);
  }
  return text;
}

}  // namespace tandem
