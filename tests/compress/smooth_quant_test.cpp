// SmoothQuant's scales of small matrices, by hand.
#include "compress/smooth_quant.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tandem {
namespace {

TEST(SmoothQuant, ScalesAreTheDefinitions) {
  Matrix q(2, 3), k(1, 3);
  q.values = {1, -4, 0, 0.5, 2, 0};
  k.values = {-2, 1, 0};
  const std::vector<const Matrix*> linears = {&q, &k};
  const std::vector<float> magnitudes = {8, 1, 9};
  // Largest |w|: 2, 4 and, of zeros, 1e-5.
  const std::vector<float> half = smooth_scales(magnitudes, linears, 0.5f);
  EXPECT_FLOAT_EQ(half[0], 2.0f);
  EXPECT_FLOAT_EQ(half[1], 0.5f);
  EXPECT_NEAR(half[2], 3.0f / std::sqrt(1e-5f), 0.1f);
  // alpha 1 moves all of the activations' range, alpha 0 all of the weights'.
  EXPECT_FLOAT_EQ(smooth_scales(magnitudes, linears, 1.0f)[0], 8.0f);
  EXPECT_FLOAT_EQ(smooth_scales(magnitudes, linears, 0.0f)[1], 0.25f);
}

TEST(SmoothQuant, ASilentChannelHasTheLeastScale) {
  Matrix w(1, 2);
  w.values = {1, 1};
  const std::vector<const Matrix*> linears = {&w};
  EXPECT_EQ(smooth_scales(std::vector<float>{0, 1}, linears, 0.5f)[0], 1e-5f);
}

}  // namespace
}  // namespace tandem
