// Statistics of scaled inputs are the scaled inputs' statistics.
#include "compress/input_statistics.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

TEST(InputStatistics, FoldedFactorsScaleEveryPart) {
  InputStatistics s;
  s.K = 2;
  s.gram = {1, 2, 2, 5};
  s.mean_magnitude = {3, 4};
  s.max_magnitude = {6, 7};
  s.sample = Matrix(1, 2);
  s.sample.values = {8, -9};
  scale_inputs(&s, {2, -10});
  EXPECT_EQ(s.gram, (std::vector<float>{4, -40, -40, 500}));
  EXPECT_EQ(s.mean_magnitude, (std::vector<float>{6, 40}));
  EXPECT_EQ(s.max_magnitude, (std::vector<float>{12, 70}));
  EXPECT_EQ(s.sample.values, (std::vector<float>{16, 90}));
}

}  // namespace
}  // namespace tandem
