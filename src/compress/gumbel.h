// Random numbers of Gumbel's distribution.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/random.h"

namespace tandem {

// At 2^14 even steps of probability: two logarithms a number would be the whole cost of learning a
// mask.
class GumbelTable {
 public:
  GumbelTable() {
    for (size_t i = 0; i < kSize; ++i) {
      const double p = (static_cast<double>(i) + 0.5) / kSize;
      values_[i] = static_cast<float>(-std::log(-std::log(p)));
    }
  }
  // Six draws, one for each 2:4 pattern, from two words.
  std::array<float, 6> draw(Random* random) const {
    std::array<float, 6> out;
    for (size_t half = 0; half < 2; ++half) {
      const uint64_t bits = random->next();
      for (size_t i = 0; i < 3; ++i) out[3 * half + i] = values_[bits >> (14 * i) & (kSize - 1)];
    }
    return out;
  }

 private:
  static constexpr size_t kSize = 1 << 14;
  std::array<float, kSize> values_;
};

}  // namespace tandem
