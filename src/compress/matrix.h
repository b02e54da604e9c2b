// A weight matrix while it is worked on: W[N, K] in float, row-major, N = out features.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tandem {

struct Matrix {
  int64_t N = 0;
  int64_t K = 0;
  std::vector<float> values;  // [N, K]

  Matrix() = default;
  Matrix(int64_t N_, int64_t K_) : N(N_), K(K_), values(static_cast<size_t>(N_ * K_)) {}

  float* row(int64_t n) { return values.data() + n * K; }
  const float* row(int64_t n) const { return values.data() + n * K; }
};

}  // namespace tandem
