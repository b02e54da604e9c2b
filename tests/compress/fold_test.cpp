// Scales moved from inputs into weights leave the function as it was.
#include "compress/fold.h"

#include <gtest/gtest.h>

#include <vector>

namespace tandem {
namespace {

TEST(Fold, ColumnsAreMultipliedAndRowsDivided) {
  Matrix w(3, 2);
  w.values = {1, 2, 3, 4, 5, 6};
  const std::vector<float> scales = {2, 4};
  scale_columns(w, scales);
  EXPECT_EQ(w.values, (std::vector<float>{2, 8, 6, 16, 10, 24}));
  // The last two of three rows, as where v is the end of a fused matrix.
  divide_rows(w, scales);
  EXPECT_EQ(w.values, (std::vector<float>{2, 8, 3, 8, 2.5, 6}));
}

TEST(Fold, ABiasIsDividedAtItsEndAndMayBeMissing) {
  std::vector<float> bias = {1, 2, 3}, none;
  const std::vector<float> scales = {2, 4};
  divide(bias, scales);
  EXPECT_EQ(bias, (std::vector<float>{1, 1, 0.75}));
  divide(none, scales);
  EXPECT_TRUE(none.empty());
}

TEST(Fold, ANormAndItsLinearStayTheSameFunction) {
  std::vector<float> norm = {0.5, 2, 8};
  Matrix w(2, 3);
  w.values = {1, -2, 3, 4, 5, -6};
  const auto output = [&](int64_t n) {
    const float x[] = {3, -1, 0.25};
    float y = 0;
    for (int64_t k = 0; k < 3; ++k) y += x[k] * norm[static_cast<size_t>(k)] * w.row(n)[k];
    return y;
  };
  const float before[] = {output(0), output(1)};
  const std::vector<float> scales = {2, 0.25, 8};  // powers of two: exact
  divide(norm, scales);
  scale_columns(w, scales);
  EXPECT_EQ(output(0), before[0]);
  EXPECT_EQ(output(1), before[1]);
}

}  // namespace
}  // namespace tandem
