// A small seeded generator (SplitMix64): the same numbers on every machine and standard library.
#pragma once

#include <cmath>
#include <cstdint>

namespace tandem {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  // in [0, 1)
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  // in [0, n), n > 0
  uint64_t below(uint64_t n) { return next() % n; }
  // standard normal
  double normal() {
    const double u = 1.0 - uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * uniform());
  }

 private:
  uint64_t state_;
};

}  // namespace tandem
