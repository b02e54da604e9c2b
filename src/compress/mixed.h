// Mixed precision: the bits of each set of linears, chosen from what rounding it alone costs, so
// that the whole stays within a budget.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "compress/bit_budget.h"
#include "compress/integer_grid.h"
#include "compress/linear_time.h"
#include "compress/step_options.h"
#include "formats/model_config.h"

namespace tandem {

enum class BudgetUnit : uint8_t {
  bytes,        // of the layers' matrices in the file
  nanoseconds,  // of a decode step's linears on this machine, measured
  microjoules,  // of the same
};
const char* unit_name(BudgetUnit unit);  // "bytes"

// [layers * kNumSets][grids]: what each set costs on the scarce side. A layer's sets are measured
// once. `isa` is read for what is measured, `joules_of` for microjoules alone. Throws no_device where
// there is no kernel for a grid.
std::vector<std::vector<double>> set_sizes(const ModelConfig& config,
                                           const std::vector<IntegerGrid>& grids, BudgetUnit unit,
                                           std::string_view isa, ThreadPool& pool,
                                           const JoulesOf& joules_of = {});

// The Pareto curve of the two tables, [sets][grids] each.
std::vector<Allocation> mixed_curve(const std::vector<std::vector<double>>& sizes,
                                    const std::vector<std::vector<double>>& costs);

// The step with the bits and groups of an allocation as overrides of its own: one for each matrix.
StepSpec with_allocation(const StepSpec& step, const std::vector<IntegerGrid>& grids,
                         const Allocation& allocation);

// Elements of the layers' matrices; bits a weight = 8 * bytes / this.
int64_t num_layer_weights(const ModelConfig& config);

}  // namespace tandem
