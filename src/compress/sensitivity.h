// What rounding one set of linears alone costs, for every set of a model and every grid offered:
// the measurements from which mixed precision is decided.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/thread_pool.h"
#include "compress/calibration_rows.h"
#include "compress/integer_grid.h"
#include "formats/checkpoint.h"

namespace tandem {

enum class SensitivityMeasure : uint8_t {
  // Mean KL(model || model with the set rounded) of the next token, in nats, over every fourth
  // token
  // of the rows, base probabilities below e^-16 left out. Costs a pass over the rest of the model
  // for each set and grid.
  kl,
  // sum over the set's linears of tr(dW H dW^T) / tr(W H W^T), H of the model's own inputs: one
  // pass, but nothing of how much the model minds.
  output,
};

// Tokens of the rows that `kl` reads at most: all sets' and grids' streams are held at once.
inline constexpr int64_t kMaxKlTokens = 1024;

// [layers * kNumSets][grids], set s of layer l at l * kNumSets + s. Every matrix is rounded to
// nearest, whatever method makes the model later. `progress` takes the share done and may throw.
std::vector<std::vector<double>> measure_sensitivity(const Checkpoint& source,
                                                     const CalibrationRows& rows,
                                                     const std::vector<IntegerGrid>& grids,
                                                     SensitivityMeasure measure, ThreadPool& pool,
                                                     const std::function<void(double)>& progress);

}  // namespace tandem
