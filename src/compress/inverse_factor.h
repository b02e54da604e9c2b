// The inputs' second moments -> the factor that error feedback needs: GPTQ and SparseGPT share it.
//
//   H = gram, dead inputs' diagonal 1, + damping * mean(diag) * I;  H^-1 = U^T U, U upper triangular
//
// U comes from one Cholesky factorization, of H with its order reversed, and the inverse of that
// factor: a third of the operations of inverting H and factorizing again.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/thread_pool.h"
#include "compress/input_statistics.h"

namespace tandem {

struct InverseFactor {
  int64_t K = 0;
  std::vector<float> upper;     // [K, K]; below the diagonal 0
  std::vector<int32_t> order;   // [K] row k belongs to input channel order[k]; empty: the identity
  std::vector<uint8_t> dead;    // [K] by channel: 1: that input was always 0
  double damping = 0;           // what it took, as a share of the mean of the diagonal

  const float* row(int64_t k) const { return upper.data() + k * K; }
  int64_t channel(int64_t k) const { return order.empty() ? k : order[static_cast<size_t>(k)]; }
};

// Damping is doubled until the factorization succeeds. Throws bad_file when it does not at 1: the
// statistics hold NaN or infinity.
InverseFactor inverse_factor(const InputStatistics& inputs, double damping,
                             std::vector<int32_t> order, ThreadPool& pool);

// [K] by channel, 1: that input was always 0.
std::vector<uint8_t> dead_inputs(const InputStatistics& inputs);
// The damping, as a share of the mean of H's diagonal, with which `factorizes` succeeds when that much
// is added to it: `damping`, or that doubled as often as it takes. Throws as inverse_factor does.
double find_damping(const InputStatistics& inputs, const std::vector<uint8_t>& dead,
                    double damping, const std::function<bool(double added)>& factorizes);

// Channels by falling diagonal of the gram, the lower of equals first: act-order.
std::vector<int32_t> act_order(const InputStatistics& inputs);
// The same within each group, the groups by their largest: groups stay whole.
std::vector<int32_t> group_aware_order(const InputStatistics& inputs, int64_t group);

}  // namespace tandem
