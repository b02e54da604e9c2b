#include "advisor/rank.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

namespace tandem {
namespace {

constexpr const char* kBaseline = "bf16";

bool is_baseline(const CellKey& cell) { return cell.variant == kBaseline && cell.kv == kBaseline; }

bool usable(double value) { return std::isfinite(value) && value > 0; }

const Record* find_baseline(const std::vector<Record>& records, int64_t batch) {
  for (const Record& record : records) {
    if (is_baseline(record.cell) && record.cell.batch == batch) return &record;
  }
  return nullptr;
}

// bf16's perplexity: from its own record, or from what the study noted in any other.
std::optional<double> find_baseline_perplexity(const std::vector<Record>& records) {
  for (const Record& record : records) {
    if (is_baseline(record.cell) && usable(record.quality.perplexity)) {
      return record.quality.perplexity;
    }
  }
  for (const Record& record : records) {
    if (!record.extra.is_object()) continue;
    const auto noted = record.extra.find("baseline_perplexity");
    if (noted != record.extra.end() && noted->is_number() && usable(noted->get<double>())) {
      return noted->get<double>();
    }
  }
  return std::nullopt;
}

double decode_rate(const Record& record) { return record.decode_tokens_per_second.median(); }
double memory_bytes(const Record& record) {
  return static_cast<double>(record.peak_resident_bytes);
}

bool is_candidate(const Record& record, Goal goal) {
  if (goal != Goal::throughput && record.cell.batch != 1) return false;
  return usable(decode_rate(record)) && usable(memory_bytes(record));
}

// Larger is better.
double merit(const Record& record, Goal goal) {
  switch (goal) {
    case Goal::balanced:
      return decode_rate(record) / memory_bytes(record);
    case Goal::fastest_decode:
    case Goal::throughput:
      return decode_rate(record);
    case Goal::least_memory:
      return -memory_bytes(record);
  }
  return 0;
}

std::string cell_name(const CellKey& cell) {
  return fmt::format("{} with {} KV", cell.variant, cell.kv);
}

std::string cell_name(const CellKey& cell, Goal goal) {
  if (goal != Goal::throughput || cell.batch == 1) return cell_name(cell);
  return fmt::format("{} at batch {}", cell_name(cell), cell.batch);
}

std::string quality_trade(const Record& record, std::optional<double> baseline_perplexity) {
  std::string text;
  if (baseline_perplexity) {
    const double rise = record.quality.perplexity / *baseline_perplexity - 1.0;
    // Rounding adds noise, not skill: a lower perplexity on one text is not sold as a gain.
    text = rise <= 0 ? "no loss of perplexity" : fmt::format("{:+.1f} % perplexity", 100.0 * rise);
  } else {
    text = fmt::format("perplexity {:.2f}", record.quality.perplexity);
  }
  if (record.quality.top1_agreement) {
    text += fmt::format(" and {:.1f} % of bf16's first choices",
                        100.0 * *record.quality.top1_agreement);
  }
  return text;
}

std::string trade(const Record& record, const Record* baseline,
                  std::optional<double> baseline_perplexity, Goal goal) {
  const std::string name = cell_name(record.cell, goal);
  const double rate = decode_rate(record), megabytes = memory_bytes(record) * 1e-6;
  if (is_baseline(record.cell)) {
    return fmt::format("{} decodes {:.0f} tokens/s in {:.0f} MB: nothing above the floor beats it",
                       name, rate, megabytes);
  }
  const std::string quality = quality_trade(record, baseline_perplexity);
  const std::string noisy = record.noisy ? " (noisy: the speed varied by more than 10 %)" : "";
  if (baseline == nullptr || !usable(decode_rate(*baseline)) || !usable(memory_bytes(*baseline))) {
    return fmt::format("{} decodes {:.0f} tokens/s in {:.0f} MB, at {}{}", name, rate, megabytes,
                       quality, noisy);
  }
  return fmt::format(
      "{} decodes {:.2f}x as fast as bf16 ({:.0f} against {:.0f} tokens/s) in {:.2f}x the "
      "memory ({:.0f} against {:.0f} MB), for {}{}",
      name, rate / decode_rate(*baseline), rate, decode_rate(*baseline),
      memory_bytes(record) / memory_bytes(*baseline), megabytes, memory_bytes(*baseline) * 1e-6,
      quality, noisy);
}

Advice advise(Goal goal, const std::vector<Record>& records,
              const std::function<bool(const Record&)>& above_floor,
              std::optional<double> baseline_perplexity) {
  Advice advice;
  advice.goal = goal;
  std::vector<const Record*> candidates;
  bool any = false;
  for (const Record& record : records) {
    if (!is_candidate(record, goal)) continue;
    any = true;
    if (above_floor(record)) candidates.push_back(&record);
  }
  if (candidates.empty()) {
    advice.text = any ? "nothing measured meets the quality floor, so nothing is recommended"
                      : "no record to choose from, so nothing is recommended";
    return advice;
  }
  std::stable_sort(candidates.begin(), candidates.end(), [goal](const Record* a, const Record* b) {
    return merit(*a, goal) > merit(*b, goal);
  });
  const Record& best = *candidates.front();
  advice.best = best.cell;
  advice.text =
      trade(best, find_baseline(records, best.cell.batch), baseline_perplexity, goal) + ".";
  if (candidates.size() > 1) {
    const Record& second = *candidates[1];
    advice.runner_up = second.cell;
    advice.text +=
        fmt::format(" Runner-up: {} ({:.0f} tokens/s, {:.0f} MB, {}).",
                    cell_name(second.cell, goal), decode_rate(second), memory_bytes(second) * 1e-6,
                    quality_trade(second, baseline_perplexity));
  }
  return advice;
}

}  // namespace

const char* goal_name(Goal goal) {
  switch (goal) {
    case Goal::balanced:
      return "balanced";
    case Goal::fastest_decode:
      return "fastest answer";
    case Goal::throughput:
      return "most throughput";
    case Goal::least_memory:
      return "least memory";
  }
  return "";
}

const std::vector<Goal>& all_goals() {
  static const std::vector<Goal> goals = {Goal::balanced, Goal::fastest_decode, Goal::throughput,
                                          Goal::least_memory};
  return goals;
}

std::string below_floor(const Record& record, std::optional<double> baseline_perplexity,
                        const QualityFloor& floor) {
  const Quality& quality = record.quality;
  if (!usable(quality.perplexity)) return "its perplexity was not measured or is not a number";
  if (is_baseline(record.cell)) return "";
  if (!baseline_perplexity || !usable(*baseline_perplexity)) {
    return "bf16's perplexity was not measured, so there is nothing to compare with";
  }
  if (!quality.top1_agreement || std::isnan(*quality.top1_agreement) ||
      (quality.kl_divergence && std::isnan(*quality.kl_divergence))) {
    return "its agreement with bf16 was not measured or is not a number";
  }
  if (*quality.top1_agreement < floor.min_top1_agreement) {
    return fmt::format("it finds {:.1f} % of bf16's first choices, the floor is {:.1f} %",
                       100.0 * *quality.top1_agreement, 100.0 * floor.min_top1_agreement);
  }
  const double rise = quality.perplexity / *baseline_perplexity - 1.0;
  if (rise > floor.max_perplexity_rise) {
    return fmt::format("its perplexity is {:+.1f} % against bf16's, the floor is {:+.1f} %",
                       100.0 * rise, 100.0 * floor.max_perplexity_rise);
  }
  return "";
}

Ranking rank(const std::vector<Record>& records, const QualityFloor& floor) {
  Ranking ranking;
  if (std::ranges::any_of(records, has_random_weights)) {
    for (const Goal goal : all_goals()) {
      ranking.advice.push_back({goal, {}, {}, "the weights are random and have no quality, so "
                                              "nothing is recommended"});
    }
    return ranking;
  }
  const std::optional<double> baseline_perplexity = find_baseline_perplexity(records);
  for (const Record& record : records) {
    const std::string reason = below_floor(record, baseline_perplexity, floor);
    const bool known = std::any_of(
        ranking.excluded.begin(), ranking.excluded.end(), [&](const Excluded& excluded) {
          return excluded.cell.variant == record.cell.variant && excluded.cell.kv == record.cell.kv;
        });
    if (!reason.empty() && !known) ranking.excluded.push_back({record.cell, reason});
  }
  const auto above_floor = [&](const Record& record) {
    return below_floor(record, baseline_perplexity, floor).empty();
  };
  for (const Goal goal : all_goals()) {
    ranking.advice.push_back(advise(goal, records, above_floor, baseline_perplexity));
  }
  return ranking;
}

}  // namespace tandem
