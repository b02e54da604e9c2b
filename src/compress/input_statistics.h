// What calibration measures of the inputs x[T, K] of a set of linears that share them.
#pragma once

#include <cstdint>
#include <vector>

#include "compress/matrix.h"

namespace tandem {

struct InputStatistics {
  int64_t K = 0;
  int64_t num_tokens = 0;
  int64_t num_sequences = 0;
  // [K, K], the sum over tokens of x x^T, both triangles; empty where no step asked for it. GPTQ's
  // H is 2 / num_sequences times it; no method depends on the factor.
  std::vector<float> gram;
  std::vector<float> mean_magnitude;  // [K], mean of |x|
  std::vector<float> max_magnitude;   // [K]
  Matrix sample;                      // [S, K], tokens at even distances, in order

  float* gram_row(int64_t k) { return gram.data() + k * K; }
  const float* gram_row(int64_t k) const { return gram.data() + k * K; }
};

// What the statistics become when channel k of the inputs is multiplied by factors[k]: a step that
// folds factors into the norm or linear before the set calls this, so that later steps see the
// inputs that the set will have.
void scale_inputs(InputStatistics* statistics, const std::vector<float>& factors);

}  // namespace tandem
