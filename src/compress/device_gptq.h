// The twins of inverse_factor.h and gptq.h on a device: the same rules, sums in another order.
#pragma once

#include "compress/gptq.h"
#include "kernels/float_work.h"

namespace tandem {

struct DeviceFactor {
  int64_t K = 0;
  Buffer upper;                // [K, K] in the device's memory
  Buffer channels;             // [K] order, there; none: the identity
  Buffer dead;                 // [K] by channel, there
  std::vector<int32_t> order;  // [K]; empty: the identity
  double damping = 0;          // what it took
};

// Of the gram where it lies: with the inputs' device_gram nothing large is copied. Throws bad_file
// and no_memory.
DeviceFactor device_inverse_factor(const InputStatistics& inputs, double damping,
                                   std::vector<int32_t> order, FloatWork& work);

// keep: as for gptq().
GridMatrix device_gptq(const Matrix& w, const std::vector<uint8_t>& keep,
                       const DeviceFactor& factor, const GptqOptions& options, FloatWork& work);

// What both together hold at most for matrices of N x K, in bytes.
uint64_t device_gptq_bytes(int64_t N, int64_t K);

}  // namespace tandem
