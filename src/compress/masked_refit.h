// The best numbers for the weights that a mask keeps: least squares over the calibration inputs, for
// masks that were chosen without an update of the weights.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "compress/input_statistics.h"
#include "compress/matrix.h"

namespace tandem {

struct RefitOptions {
  double damping = 0.01;      // of the gram's diagonal, as a share of its mean: towards `original`
  double tolerance = 1e-3;    // a row is done when its gradient has fallen by this factor
  int64_t max_iterations = 64;
};

// Makes tr((w - original) H (w - original)^T) as small as weights that are 0 outside keep[N, K] can,
// from w as it comes: its pruned weights become 0. H is the gram with damping. The rows of a 2:4
// mask keep different columns, so each is a system of its own: all are solved at once by conjugate
// gradients with H's diagonal as the preconditioner, one product of [N, K] and [K, K] an
// iteration; the error falls with each, so stopping early is safe. Rows stop one by one. Returns
// the iterations of the slowest row. Shapes and a gram that is there: CHECKed.
int64_t refit_survivors(Matrix* w, const Matrix& original, const std::vector<uint8_t>& keep,
                        const InputStatistics& inputs, const RefitOptions& options,
                        ThreadPool& pool);

// tr(d gram d^T) of d = w - original: the sum over tokens and rows of the squared change of outputs.
double output_error(const Matrix& w, const Matrix& original, const InputStatistics& inputs,
                    ThreadPool& pool);

}  // namespace tandem
