#include "compress/smooth_quant.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace tandem {

std::vector<float> smooth_scales(std::span<const float> max_magnitudes,
                                 std::span<const Matrix* const> linears, float alpha) {
  constexpr float kLeast = 1e-5f;
  CHECK(alpha >= 0.0f && alpha <= 1.0f, "alpha {}", alpha);
  std::vector<float> largest(max_magnitudes.size(), kLeast);
  for (const Matrix* w : linears) {
    CHECK(w->K == static_cast<int64_t>(largest.size()), "K {} of {}", w->K, largest.size());
    for (int64_t n = 0; n < w->N; ++n) {
      const float* row = w->row(n);
      for (size_t k = 0; k < largest.size(); ++k)
        largest[k] = std::max(largest[k], std::fabs(row[k]));
    }
  }
  for (size_t k = 0; k < largest.size(); ++k) {
    const float scale = std::pow(max_magnitudes[k], alpha) / std::pow(largest[k], 1.0f - alpha);
    largest[k] = std::max(kLeast, scale);
  }
  return largest;
}

}  // namespace tandem
