// Scales, zeros and codes of integer grids, against numbers worked out by hand.
#include "compress/integer_grid.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"

namespace tandem {
namespace {

constexpr IntegerGrid kInt4{4, 4, true, ScaleType::f32};
constexpr IntegerGrid kUint4{4, 4, false, ScaleType::f32};

std::vector<float> decoded(const GridMatrix& matrix, int64_t n) {
  std::vector<float> row(static_cast<size_t>(matrix.K));
  decode_row(matrix, n, row.data());
  return row;
}

Matrix random_matrix(int64_t N, int64_t K, uint64_t seed) {
  Matrix w(N, K);
  Random random(seed);
  for (float& value : w.values) value = static_cast<float>(random.normal());
  return w;
}

TEST(IntegerGrid, SymmetricSpansHalfAStepBeyondTheCodes) {
  const float w[] = {-3.0f, 7.5f, 1.0f, 0.0f};
  const GroupFit fit = fit_group(kInt4, w, 4);
  EXPECT_EQ(fit.scale, 1.0f);
  EXPECT_EQ(fit.zero, 8);
  EXPECT_EQ(code_of(kInt4, fit, 7.5f), 15);   // clips to 7
  EXPECT_EQ(code_of(kInt4, fit, -7.5f), 0);   // half to even: -8
  EXPECT_EQ(code_of(kInt4, fit, 2.5f), 10);   // half to even: 2
  EXPECT_EQ(code_of(kInt4, fit, -99.0f), 0);
}

TEST(IntegerGrid, GroupWithoutNegativesHasTheSameScale) {
  const float positive[] = {7.5f, 1.0f, 2.0f, 0.5f}, negative[] = {-7.5f, -1.0f, -2.0f, -0.5f};
  EXPECT_EQ(fit_group(kInt4, positive, 4).scale, fit_group(kInt4, negative, 4).scale);
}

TEST(IntegerGrid, AsymmetricRangeHoldsZero) {
  const float mixed[] = {-5.0f, 10.0f, 0.0f, 1.0f};
  GroupFit fit = fit_group(kUint4, mixed, 4);
  EXPECT_EQ(fit.scale, 1.0f);
  EXPECT_EQ(fit.zero, 5);
  const float positive[] = {15.0f, 10.0f, 12.0f, 11.0f};
  fit = fit_group(kUint4, positive, 4);
  EXPECT_EQ(fit.scale, 1.0f);
  EXPECT_EQ(fit.zero, 0);
  const float negative[] = {-15.0f, -10.0f, -12.0f, -11.0f};
  fit = fit_group(kUint4, negative, 4);
  EXPECT_EQ(fit.scale, 1.0f);
  EXPECT_EQ(fit.zero, 15);
}

TEST(IntegerGrid, ScaleIsANumberOfItsType) {
  EXPECT_EQ(stored_scale(1.00390625f, ScaleType::bf16), 1.0f);  // half to even
  EXPECT_EQ(stored_scale(1.00390625f, ScaleType::f16), 1.00390625f);
  EXPECT_EQ(stored_scale(1e6f, ScaleType::f16), 65504.0f);
  EXPECT_EQ(stored_scale(1e-9f, ScaleType::f16), 0x1p-10f);
  EXPECT_EQ(stored_scale(0.0f, ScaleType::bf16), 0x1p-7f);
}

TEST(IntegerGrid, ZerosStayZeroInEveryGrid) {
  for (const IntegerGrid& grid : {kInt4, kUint4}) {
    const float zeros[4] = {};
    const GroupFit fit = fit_group(grid, zeros, 4);
    EXPECT_EQ(value_of(fit, code_of(grid, fit, 0.0f)), 0.0f);
  }
  const Matrix w = random_matrix(1, 64, 3);
  for (int bits = 2; bits <= 8; ++bits) {
    for (bool symmetric : {false, true}) {
      const IntegerGrid grid{bits, 0, symmetric, ScaleType::f16};
      const GroupFit fit = fit_group(grid, w.row(0), 64);
      EXPECT_EQ(value_of(fit, code_of(grid, fit, 0.0f)), 0.0f) << bits;
    }
  }
}

TEST(IntegerGrid, RoundsEveryWeightByAtMostHalfAStep) {
  const Matrix w = random_matrix(5, 96, 1);
  ThreadPool pool(2, /*pin=*/false);
  for (bool symmetric : {false, true}) {
    for (int bits : {3, 4, 8}) {
      const GridMatrix grid = round_to_nearest(w, {bits, 32, symmetric, ScaleType::f32}, pool);
      for (int64_t n = 0; n < w.N; ++n) {
        const std::vector<float> row = decoded(grid, n);
        for (int64_t k = 0; k < w.K; ++k) {
          const float half = grid.fit(n, k / 32).scale / 2;
          // Asymmetric: the zero is rounded too, which moves both ends by up to half a step.
          const float most = symmetric ? half : 2 * half;
          EXPECT_LE(std::fabs(row[static_cast<size_t>(k)] - w.row(n)[k]), most * 1.0001f);
        }
      }
    }
  }
}

TEST(IntegerGrid, SearchIsNeverWorseByItsMeasure) {
  const Matrix w = random_matrix(40, 32, 2);
  const IntegerGrid grid{3, 32, true, ScaleType::f32};
  const auto error = [&](const GroupFit& fit, const float* x) {
    double sum = 0;
    for (int k = 0; k < 32; ++k) {
      sum += std::pow(std::fabs(x[k] - value_of(fit, code_of(grid, fit, x[k]))), 2.4);
    }
    return sum;
  };
  int better = 0;
  for (int64_t n = 0; n < w.N; ++n) {
    const double plain = error(fit_group(grid, w.row(n), 32), w.row(n));
    const double searched = error(search_group(grid, w.row(n), 32), w.row(n));
    EXPECT_LE(searched, plain);
    better += searched < plain;
  }
  EXPECT_GT(better, 20);
}

TEST(IntegerGrid, ColumnsNameTheInputChannels) {
  GridMatrix matrix({4, 2, true, ScaleType::f32}, 1, 4);
  matrix.codes = {9, 10, 11, 12};
  matrix.scales = {1.0f, 10.0f};
  EXPECT_EQ(decoded(matrix, 0), (std::vector<float>{1, 2, 30, 40}));
  matrix.columns = {2, 0, 3, 1};
  EXPECT_EQ(decoded(matrix, 0), (std::vector<float>{2, 40, 1, 30}));
}

}  // namespace
}  // namespace tandem
