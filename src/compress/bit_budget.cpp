#include "compress/bit_budget.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/error.h"

namespace tandem {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

using Choices = std::vector<std::vector<Form>>;

double least_size(const std::vector<Form>& forms) {
  return std::ranges::min_element(forms, {}, &Form::size)->size;
}

// The size of a step: the span of the totals over num_steps, but 1 where sizes are that small.
double step_size(const Choices& choices, int64_t num_steps) {
  double span = 0.0;
  for (const std::vector<Form>& forms : choices) {
    span += std::ranges::max_element(forms, {}, &Form::size)->size - least_size(forms);
  }
  const double step = span / static_cast<double>(num_steps);
  return step > 0.0 ? step : 1.0;
}

// Steps of the totals above the smallest, of one form.
int64_t steps_of(const Form& form, double least, double step) {
  // The last bits of a sum of doubles are no reason for a step more.
  return static_cast<int64_t>(std::ceil((form.size - least) / step - 1e-9));
}

// Follows the taken forms back from `steps` of the last matrix.
Allocation trace(const Choices& choices, const std::vector<std::vector<int16_t>>& taken,
                 double step, int64_t steps) {
  Allocation allocation;
  allocation.forms.resize(choices.size());
  for (size_t m = choices.size(); m-- > 0;) {
    const int form = taken[m][static_cast<size_t>(steps)];
    const Form& chosen = choices[m][static_cast<size_t>(form)];
    allocation.forms[m] = form;
    allocation.size += chosen.size;
    allocation.cost += chosen.cost;
    steps -= steps_of(chosen, least_size(choices[m]), step);
  }
  return allocation;
}

}  // namespace

std::vector<Allocation> pareto_curve(const Choices& choices, int64_t num_steps) {
  CHECK(!choices.empty() && num_steps > 0, "{} matrices, {} steps", choices.size(), num_steps);
  for (const std::vector<Form>& forms : choices) CHECK(!forms.empty(), "a matrix without a form");
  const double step = step_size(choices, num_steps);
  // Rounding up adds less than a step a matrix.
  const auto width = static_cast<size_t>(num_steps) + choices.size() + 1;
  // costs[i]: the least of the matrices so far with exactly i steps.
  std::vector<double> costs(width, kInfinite), next(width);
  costs[0] = 0.0;
  std::vector<std::vector<int16_t>> taken(choices.size(), std::vector<int16_t>(width, -1));
  for (size_t m = 0; m < choices.size(); ++m) {
    std::ranges::fill(next, kInfinite);
    const double least = least_size(choices[m]);
    for (size_t f = 0; f < choices[m].size(); ++f) {
      const auto steps = static_cast<size_t>(steps_of(choices[m][f], least, step));
      for (size_t i = 0; i + steps < width; ++i) {
        const double cost = costs[i] + choices[m][f].cost;
        if (cost >= next[i + steps]) continue;
        next[i + steps] = cost;
        taken[m][i + steps] = static_cast<int16_t>(f);
      }
    }
    costs.swap(next);
  }

  std::vector<Allocation> curve;
  double least_cost = kInfinite;
  for (size_t i = 0; i < width; ++i) {
    if (!(costs[i] < least_cost)) continue;
    least_cost = costs[i];
    curve.push_back(trace(choices, taken, step, static_cast<int64_t>(i)));
  }
  // Steps order like sizes but for the rounding: what is beaten by a real size goes.
  std::ranges::sort(curve, {}, [](const Allocation& a) { return std::pair(a.size, a.cost); });
  std::vector<Allocation> kept;
  for (Allocation& allocation : curve) {
    if (kept.empty() || allocation.cost < kept.back().cost) kept.push_back(std::move(allocation));
  }
  return kept;
}

const Allocation& within_budget(const std::vector<Allocation>& curve, double budget,
                                const char* unit) {
  CHECK(!curve.empty(), "an empty curve");
  const Allocation* best = nullptr;
  for (const Allocation& allocation : curve) {
    if (allocation.size <= budget) best = &allocation;
  }
  if (best == nullptr) {
    fail(ErrorKind::usage, "budget {:.0f} {}: the smallest there is takes {:.0f}", budget, unit,
         curve.front().size);
  }
  return *best;
}

}  // namespace tandem
