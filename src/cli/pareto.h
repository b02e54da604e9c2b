// The curve of mixed precision's allocations -> lines for a terminal and a figure.
#pragma once

#include <string>
#include <vector>

#include "compress/mixed.h"

namespace tandem {

// What the curve's axes count.
struct ParetoAxes {
  BudgetUnit unit = BudgetUnit::bytes;
  std::string cost;  // "KL, nats"
  int64_t num_layer_weights = 0;
};

// A table of at most `rows` points at even distances, the chosen one marked.
std::string pareto_table(const std::vector<Allocation>& curve, const Allocation& chosen,
                         const ParetoAxes& axes, size_t rows = 12);

// The curve as one SVG file with its own colours, the chosen point ringed.
std::string pareto_svg(const std::vector<Allocation>& curve, const Allocation& chosen,
                       const ParetoAxes& axes);

}  // namespace tandem
