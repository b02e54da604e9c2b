// 2:4 masks learned for one matrix against its own outputs: MaskLLM's Gumbel-softmax over the six
// patterns of each group (arXiv 2409.17481), with the squared change of the outputs over the
// calibration inputs in place of a language model's loss.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "compress/input_statistics.h"
#include "compress/matrix.h"

namespace tandem {

// Temperatures fall from 4 to 0.05 and logits grow from 100 to 500 times the gates, as in the
// paper. Its 2000 steps of Adam at 5e-4 are far fewer here, so the rate is higher; both fall to a
// tenth along a cosine. No term keeps magnitudes large: this loss does so by itself.
struct MaskLearning {
  int64_t iterations = 200;
  double rate = 5e-3;
  double prior_strength = 3.0;  // of the prior mask's pattern, in deviations of the gates
  uint64_t seed = 0;
};

// keep[N, K], two of each four; weights stay as they are while the mask is learned. prior[N, K] is
// a mask found otherwise. Needs the gram. Deterministic, whatever the number of threads.
std::vector<uint8_t> learn_mask(const Matrix& w, const std::vector<uint8_t>& prior,
                                const InputStatistics& inputs, const MaskLearning& options,
                                ThreadPool& pool);

}  // namespace tandem
