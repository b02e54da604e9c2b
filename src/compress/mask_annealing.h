// 2:4 masks found together with the weights that they keep, for one matrix against its own outputs:
// the patterns of a group are judged by what is left when their two survivors are refitted.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "compress/input_statistics.h"
#include "compress/matrix.h"

namespace tandem {

struct MaskAnnealing {
  int64_t sweeps = 30;
  double heat = 1.0;      // the first temperature, in errors of the row shared out among its groups
  double damping = 0.01;  // of the gram's diagonal, as a share of its mean
  uint64_t seed = 0;
};

// Makes tr((w - original) H (w - original)^T) smaller, H the gram with damping, from w[N, K], which
// must be 0 where keep[N, K] is, and a mask of two of each four. A sweep visits the groups of a row
// in order: for each of the six patterns least squares gives the two survivors and the error e, all
// other weights held; the pattern of the largest Gumbel - e / T is taken, a draw with probability
// proportional to exp(-e / T). T falls to 0 over the first four fifths of the sweeps, which leaves
// descent. A row that ends no better than it came stays as it was. Needs the gram: CHECKed.
// Deterministic, whatever the number of threads.
void anneal_mask(Matrix* w, std::vector<uint8_t>* keep, const Matrix& original,
                 const InputStatistics& inputs, const MaskAnnealing& options, ThreadPool& pool);

}  // namespace tandem
