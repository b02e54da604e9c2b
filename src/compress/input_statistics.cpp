#include "compress/input_statistics.h"

#include <cmath>

#include "base/error.h"

namespace tandem {

void scale_inputs(InputStatistics* statistics, const std::vector<float>& factors) {
  const int64_t K = statistics->K;
  CHECK(static_cast<int64_t>(factors.size()) == K, "{} factors, K {}", factors.size(), K);
  for (int64_t k = 0; k < K; ++k) {
    const float factor = factors[static_cast<size_t>(k)];
    statistics->mean_magnitude[static_cast<size_t>(k)] *= std::fabs(factor);
    statistics->max_magnitude[static_cast<size_t>(k)] *= std::fabs(factor);
    if (statistics->gram.empty()) continue;
    for (int64_t j = 0; j < K; ++j) {
      statistics->gram_row(k)[j] *= factor * factors[static_cast<size_t>(j)];
    }
  }
  for (int64_t s = 0; s < statistics->sample.N; ++s) {
    float* x = statistics->sample.row(s);
    for (int64_t k = 0; k < K; ++k) x[k] *= factors[static_cast<size_t>(k)];
  }
}

}  // namespace tandem
