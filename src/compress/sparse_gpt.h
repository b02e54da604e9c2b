// SparseGPT: 2:4 pruning column by column, each column's error fed to those still to come so that
// W x changes least over the calibration inputs (arXiv 2301.00774); and Wanda, its mask alone from
// magnitudes and inputs (arXiv 2306.11695).
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "compress/input_statistics.h"
#include "compress/inverse_factor.h"
#include "compress/matrix.h"

namespace tandem {

// keep[N, K]: 1: kept, 0: pruned; two of each four neighbouring elements of a row are kept, of
// equals the lower index is pruned first.

// The two of four with the highest |w| * norm of the input. Needs the gram's diagonal. K is a
// multiple of 4: CHECKed here and below.
std::vector<uint8_t> wanda_mask(const Matrix& w, const InputStatistics& inputs, ThreadPool& pool);

// Prunes w and updates what it keeps. At each fourth column the two of four with the highest
// w^2 / U[k,k]^2, of the weights as the feedback has left them, are kept. The factor must be in the
// channels' order: CHECKed. Deterministic, whatever the number of threads.
std::vector<uint8_t> sparse_gpt(Matrix* w, const InverseFactor& factor, ThreadPool& pool);

// The same feedback under a mask that is given.
void apply_mask_with_feedback(Matrix* w, const std::vector<uint8_t>& keep,
                              const InverseFactor& factor, ThreadPool& pool);

}  // namespace tandem
