// Which of several forms each matrix takes, so that the costs' sum is least and the sizes' sum
// stays within a budget: mixed precision as a multiple-choice knapsack. A size is whatever is
// scarce: bytes of the file, nanoseconds or microjoules of a decode step.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem {

struct Form {
  double size = 0.0;  // at least 0
  double cost = 0.0;  // what taking it loses, such as KL in nats; finite
};

struct Allocation {
  double size = 0.0;
  double cost = 0.0;
  std::vector<int> forms;  // [matrices], the form each takes
};

// Every allocation that no other beats in both size and cost, by rising size: the Pareto curve. By
// dynamic programming over sizes in steps of 1/num_steps of the span from smallest to largest
// total; each form's size is rounded up to a step, so a curve point is exact in size and at most a
// step a matrix away from the best cost. `choices` is [matrices][forms], no matrix without a form:
// CHECKed.
std::vector<Allocation> pareto_curve(const std::vector<std::vector<Form>>& choices,
                                     int64_t num_steps = 8192);

// The least cost of the curve within the budget. Throws usage naming the least size there is when
// that is above the budget; `unit` names what sizes count ("bytes").
const Allocation& within_budget(const std::vector<Allocation>& curve, double budget,
                                const char* unit);

}  // namespace tandem
