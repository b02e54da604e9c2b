#include "compress/output_error.h"

#include "base/error.h"

namespace tandem {

double output_error(const Matrix& a, const Matrix& b, std::span<const float> gram,
                    Multiply multiply, ThreadPool& pool) {
  const int64_t N = a.N, K = a.K;
  CHECK(b.N == N && b.K == K && static_cast<int64_t>(gram.size()) == K * K,
        "[{}, {}] and [{}, {}], gram {}", N, K, b.N, b.K, gram.size());
  Matrix difference(N, K), product(N, K);
  for (size_t i = 0; i < a.values.size(); ++i) difference.values[i] = a.values[i] - b.values[i];
  multiply(
      pool,
      {N, K, K, {difference.values.data(), K, 1}, {gram.data(), K, 1}, product.values.data(), K});
  double sum = 0.0;
  for (int64_t n = 0; n < N; ++n) {
    const float *d = difference.row(n), *p = product.row(n);
    double row = 0.0;
    for (int64_t k = 0; k < K; ++k) row += static_cast<double>(d[k]) * p[k];
    sum += row;
  }
  return sum;
}

double squared_distance(std::span<const float> a, std::span<const float> b) {
  CHECK(a.size() == b.size(), "{} and {}", a.size(), b.size());
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double off = static_cast<double>(a[i]) - b[i];
    sum += off * off;
  }
  return sum;
}

}  // namespace tandem
