// Records -> which configuration to deploy, with reasons. Everything said here was measured;
// nothing that falls below the quality floor is recommended.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "study/record.h"

namespace tandem {

enum class Goal : uint8_t {
  balanced,        // batch 1: decode speed-up divided by the share of memory
  fastest_decode,  // batch 1: most decoded tokens per second
  throughput,      // any batch: most decoded tokens per second
  least_memory,    // batch 1: lowest peak resident memory
};
const char* goal_name(Goal goal);
const std::vector<Goal>& all_goals();

struct QualityFloor {
  double min_top1_agreement = 0.90;   // with bf16
  double max_perplexity_rise = 0.05;  // over bf16, as a share
};

// A record that the floor keeps out, and why, for people.
struct Excluded {
  CellKey cell;
  std::string reason;
};

struct Advice {
  Goal goal = Goal::balanced;
  std::optional<CellKey> best;  // absent: nothing can be recommended, and text says why
  std::optional<CellKey> runner_up;
  std::string text;  // one or two sentences that name the trade
};

struct Ranking {
  std::vector<Advice> advice;      // one for each goal
  std::vector<Excluded> excluded;  // once for each variant and KV type
};

// The reference of all comparisons is bf16 with bf16 KV at the same batch; where no record has it
// the text gives absolute numbers.
Ranking rank(const std::vector<Record>& records, const QualityFloor& floor);

// Why the floor keeps this record out; empty when it does not. Quality that was not measured, or is
// NaN, is below every floor. baseline_perplexity: bf16's, absent when unknown.
std::string below_floor(const Record& record, std::optional<double> baseline_perplexity,
                        const QualityFloor& floor);

}  // namespace tandem
