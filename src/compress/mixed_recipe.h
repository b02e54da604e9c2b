// A recipe's [mixed] table -> the bits of each set of linears, as overrides of its last step.
//
//   [mixed]
//   bits = "3 4 8"              # the widths offered; `group` (64), `symmetric` (false) go for all
//   bits-per-weight = 4.25      # the budget: or `megabytes` of the layers' matrices, or
//                               # `microseconds` or `millijoules` of a decode step's linears,
//                               # measured on this machine
//   measure = "kl"              # or "output": what rounding a set costs (compress/sensitivity.h)
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "compress/mixed.h"
#include "compress/sensitivity.h"
#include "compress/step_recipe.h"

namespace tandem {

struct MixedChoice {
  BudgetUnit unit = BudgetUnit::bytes;
  SensitivityMeasure measure = SensitivityMeasure::kl;
  std::vector<Allocation> curve;
  size_t chosen = 0;  // of the curve
};

// Measures, allocates, and changes the recipe: its last step takes the overrides and its text says
// what was chosen. CHECKs that it has a [mixed] table. Throws usage for options that are unknown or
// contradict, for a last step without `bits`, and for a budget below the least there is.
MixedChoice allocate_bits(StepRecipe* recipe, const Checkpoint& source, const CalibrationRows& rows,
                          std::string_view isa, ThreadPool& pool, const JoulesOf& joules_of,
                          const std::function<void(double)>& progress);

}  // namespace tandem
