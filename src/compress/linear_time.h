// What a decode step's linear takes on this machine, time or energy, measured: the co-design side of
// mixed precision.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "base/thread_pool.h"
#include "tensor/encoding.h"

namespace tandem {

// Nanoseconds that one token's product with a matrix [N, K] of this encoding takes on the pool, the
// median of rounds over copies that the last-level cache does not hold. K is whole blocks: CHECKed.
// Throws no_device when the instruction set has no kernel for the packing.
double linear_nanoseconds(const Encoding& encoding, int64_t N, int64_t K, std::string_view isa,
                          ThreadPool& pool);

// Joules that the machine takes while `work` runs. Throws no_device where no meter tells.
using JoulesOf = std::function<double(const std::function<void()>& work)>;

// Microjoules of the same product, what the machine draws at rest included: the mean over a second,
// for meters are slow.
double linear_microjoules(const Encoding& encoding, int64_t N, int64_t K, std::string_view isa,
                          ThreadPool& pool, const JoulesOf& joules_of);

}  // namespace tandem
