// GPTQ: weights rounded column by column, each column's error fed to those still to come so that
// W x changes least over the calibration inputs (arXiv 2210.17323).
#pragma once

#include <cstdint>
#include <vector>

#include "compress/integer_grid.h"
#include "compress/inverse_factor.h"

namespace tandem {

enum class ColumnOrder : uint8_t {
  natural,
  group_aware,  // within each group by falling diagonal, groups by their largest; costs nothing at
                // run time
  act,          // by falling diagonal; groups are of that order and the matrix has columns, unless
                // groups are static
};

struct GptqOptions {
  IntegerGrid grid;
  ColumnOrder order = ColumnOrder::natural;
  // Groups are of neighbouring channels, fitted on the weights as they came; else they are fitted at
  // their turn, on what the feedback has made of them.
  bool static_groups = false;
  bool search = false;     // scales by search_group
  double damping = 0.01;

  bool operator==(const GptqOptions&) const = default;
};

// The order of the factor that these options want; empty: the identity.
std::vector<int32_t> column_order(const GptqOptions& options, const InputStatistics& inputs);

// w is used up. keep: [N, K], 0: pruned, the weight and its code's number are 0; empty: dense.
// `factor` has the order of column_order(). Deterministic, whatever the number of threads.
GridMatrix gptq(Matrix w, const std::vector<uint8_t>& keep, const InverseFactor& factor,
                const GptqOptions& options, ThreadPool& pool);

}  // namespace tandem
