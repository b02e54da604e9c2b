#include "compress/fold.h"

#include "base/error.h"

namespace tandem {

void scale_columns(Matrix& w, std::span<const float> scales) {
  CHECK(static_cast<int64_t>(scales.size()) == w.K, "scales {} K {}", scales.size(), w.K);
  for (int64_t n = 0; n < w.N; ++n) {
    float* row = w.row(n);
    for (size_t k = 0; k < scales.size(); ++k) row[k] *= scales[k];
  }
}

void divide_rows(Matrix& w, std::span<const float> scales) {
  const int64_t first = w.N - static_cast<int64_t>(scales.size());
  CHECK(first >= 0, "scales {} N {}", scales.size(), w.N);
  for (size_t i = 0; i < scales.size(); ++i) {
    float* row = w.row(first + static_cast<int64_t>(i));
    for (int64_t k = 0; k < w.K; ++k) row[k] /= scales[i];
  }
}

void divide(std::span<float> v, std::span<const float> scales) {
  if (v.empty()) return;
  CHECK(v.size() >= scales.size(), "scales {} of {}", scales.size(), v.size());
  float* last = v.data() + (v.size() - scales.size());
  for (size_t i = 0; i < scales.size(); ++i) last[i] /= scales[i];
}

}  // namespace tandem
