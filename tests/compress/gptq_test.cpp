// GPTQ against its definition: one column at a time with the inverse written out, in double; and what
// must hold in every order.
#include "compress/gptq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error_message.h"
#include "base/random.h"

namespace tandem {
namespace {

// Inputs whose channels depend on each other and differ in size.
InputStatistics correlated_inputs(int64_t K, uint64_t seed) {
  Random random(seed);
  const int64_t T = 4 * K;
  InputStatistics inputs;
  inputs.K = K;
  inputs.num_tokens = T;
  inputs.num_sequences = 4;
  inputs.gram.resize(static_cast<size_t>(K * K));
  std::vector<double> x(static_cast<size_t>(K));
  for (int64_t t = 0; t < T; ++t) {
    double previous = 0;
    for (int64_t k = 0; k < K; ++k) {
      previous = 0.7 * previous + random.normal() * (1 + 3 * (k % 7 == 2));
      x[static_cast<size_t>(k)] = previous;
    }
    for (int64_t i = 0; i < K; ++i) {
      for (int64_t j = 0; j < K; ++j) {
        inputs.gram_row(i)[j] +=
            static_cast<float>(x[static_cast<size_t>(i)] * x[static_cast<size_t>(j)]);
      }
    }
  }
  return inputs;
}

Matrix random_matrix(int64_t N, int64_t K, uint64_t seed) {
  Matrix w(N, K);
  Random random(seed);
  for (float& value : w.values) value = static_cast<float>(random.normal());
  return w;
}

Matrix decoded(const GridMatrix& grid) {
  Matrix w(grid.N, grid.K);
  for (int64_t n = 0; n < grid.N; ++n) decode_row(grid, n, w.row(n));
  return w;
}

// The sum over tokens of |(a - b) x|^2.
double output_error(const Matrix& a, const Matrix& b, const InputStatistics& inputs) {
  double sum = 0;
  for (int64_t n = 0; n < a.N; ++n) {
    for (int64_t i = 0; i < a.K; ++i) {
      for (int64_t j = 0; j < a.K; ++j) {
        sum += static_cast<double>(a.row(n)[i] - b.row(n)[i]) * inputs.gram_row(i)[j] *
               static_cast<double>(a.row(n)[j] - b.row(n)[j]);
      }
    }
  }
  return sum;
}

class GptqTest : public testing::Test {
 protected:
  GridMatrix run(const Matrix& w, const InputStatistics& inputs, const GptqOptions& options,
                 const std::vector<uint8_t>& keep = {}) {
    return gptq(w, keep, inverse_factor(inputs, options.damping, column_order(options, inputs), pool_),
                options, pool_);
  }
  ThreadPool pool_{2, /*pin=*/false};
};

// Gauss-Jordan in double.
std::vector<double> inverse_of(std::vector<double> a, size_t n) {
  std::vector<double> inverse(n * n);
  for (size_t i = 0; i < n; ++i) inverse[i * n + i] = 1;
  for (size_t p = 0; p < n; ++p) {
    const double pivot = a[p * n + p];
    for (size_t j = 0; j < n; ++j) a[p * n + j] /= pivot, inverse[p * n + j] /= pivot;
    for (size_t i = 0; i < n; ++i) {
      const double factor = a[i * n + p];
      if (i == p) continue;
      for (size_t j = 0; j < n; ++j) {
        a[i * n + j] -= factor * a[p * n + j];
        inverse[i * n + j] -= factor * inverse[p * n + j];
      }
    }
  }
  return inverse;
}

TEST_F(GptqTest, FactorOfTheInverse) {
  for (const int64_t K : {int64_t{1}, int64_t{5}, int64_t{64}, int64_t{200}}) {
    const InputStatistics inputs = correlated_inputs(K, 5);
    const std::vector<int32_t> order = act_order(inputs);
    const InverseFactor factor = inverse_factor(inputs, 0.01, order, pool_);
    EXPECT_EQ(factor.damping, 0.01);
    double mean = 0;
    for (int64_t k = 0; k < K; ++k) mean += inputs.gram_row(k)[k] / static_cast<double>(K);
    // U^T U H = I.
    double worst = 0;
    for (int64_t i = 0; i < K; ++i) {
      std::vector<double> row(static_cast<size_t>(K));  // of U^T U
      for (int64_t p = 0; p <= i; ++p) {
        for (int64_t j = p; j < K; ++j) {
          row[static_cast<size_t>(j)] += static_cast<double>(factor.row(p)[i]) * factor.row(p)[j];
        }
      }
      for (int64_t j = 0; j < K; ++j) {
        double sum = 0;
        for (int64_t m = 0; m < K; ++m) {
          const double h = inputs.gram_row(order[static_cast<size_t>(m)])[order[static_cast<size_t>(j)]] +
                           (m == j ? 0.01 * mean : 0);
          sum += row[static_cast<size_t>(m)] * h;
        }
        worst = std::max(worst, std::fabs(sum - (i == j ? 1 : 0)));
      }
    }
    EXPECT_LT(worst, 2e-3) << K;
  }
}

TEST_F(GptqTest, IsColumnByColumnErrorFeedback) {
  const int64_t N = 6, K = 160, group = 32;
  const InputStatistics inputs = correlated_inputs(K, 6);
  const Matrix w = random_matrix(N, K, 7);
  const GptqOptions options{.grid = {4, group, false, ScaleType::f32}};
  const GridMatrix found = run(w, inputs, options);

  // The textbook: with the columns before i fixed, the least increase of the error is had by
  // w[j] -= e / C[i,i] * C[i,j], C the inverse of H over columns i and later.
  double mean = 0;
  for (int64_t k = 0; k < K; ++k) mean += inputs.gram_row(k)[k] / static_cast<double>(K);
  std::vector<std::vector<double>> rows(N);
  for (int64_t n = 0; n < N; ++n) rows[static_cast<size_t>(n)].assign(w.row(n), w.row(n) + K);
  int64_t other = 0;
  std::vector<GroupFit> fits(N);
  for (int64_t i = 0; i < K; ++i) {
    const auto size = static_cast<size_t>(K - i);
    std::vector<double> h(size * size);
    for (size_t a = 0; a < size; ++a) {
      for (size_t b = 0; b < size; ++b) {
        h[a * size + b] = inputs.gram_row(i + static_cast<int64_t>(a))[i + static_cast<int64_t>(b)];
      }
      h[a * size + a] += 0.01 * mean;
    }
    // Only the first row of the inverse is needed; a full one every 16 columns would not be exact.
    const std::vector<double> inverse = inverse_of(h, size);
    for (int64_t n = 0; n < N; ++n) {
      auto& row = rows[static_cast<size_t>(n)];
      auto& fit = fits[static_cast<size_t>(n)];
      if (i % group == 0) {
        const std::vector<float> values(row.begin() + i, row.begin() + i + group);
        fit = fit_group(options.grid, values.data(), group);
      }
      const auto value = static_cast<float>(row[static_cast<size_t>(i)]);
      const uint8_t code = code_of(options.grid, fit, value);
      other += code != found.codes[static_cast<size_t>(n * K + i)];
      const double error = (row[static_cast<size_t>(i)] - value_of(fit, code)) / inverse[0];
      for (size_t j = 0; j < size; ++j) row[static_cast<size_t>(i) + j] -= error * inverse[j];
    }
  }
  // A rounding that hangs on float's last bits changes what comes after it.
  EXPECT_LE(other, N * K / 50);
}

TEST_F(GptqTest, EveryOrderBeatsRoundToNearest) {
  const InputStatistics inputs = correlated_inputs(192, 8);
  const Matrix w = random_matrix(24, 192, 9);
  for (const bool symmetric : {true, false}) {
    for (const int bits : {3, 4, 8}) {
      const IntegerGrid grid{bits, 64, symmetric, ScaleType::bf16};
      const double nearest = output_error(decoded(round_to_nearest(w, grid, pool_)), w, inputs);
      for (const ColumnOrder order : {ColumnOrder::natural, ColumnOrder::group_aware,
                                      ColumnOrder::act}) {
        for (const bool is_static : {false, true}) {
          const GptqOptions options{grid, order, is_static, false, 0.01};
          const double error = output_error(decoded(run(w, inputs, options)), w, inputs);
          EXPECT_LT(error, 0.8 * nearest)
              << bits << " " << symmetric << " order " << static_cast<int>(order) << is_static;
        }
      }
    }
  }
}

TEST_F(GptqTest, OnlyActOrderLeavesColumns) {
  const InputStatistics inputs = correlated_inputs(64, 10);
  const Matrix w = random_matrix(4, 64, 11);
  for (const ColumnOrder order : {ColumnOrder::natural, ColumnOrder::group_aware}) {
    EXPECT_TRUE(run(w, inputs, {.grid = {4, 32}, .order = order}).columns.empty());
  }
  const GptqOptions fixed{.grid = {4, 32}, .order = ColumnOrder::act, .static_groups = true};
  EXPECT_TRUE(run(w, inputs, fixed).columns.empty());
  const GridMatrix act = run(w, inputs, {.grid = {4, 32}, .order = ColumnOrder::act});
  EXPECT_EQ(act.columns, act_order(inputs));
}

TEST_F(GptqTest, GroupAwareOrderKeepsGroupsWhole) {
  InputStatistics inputs;
  inputs.K = 6;
  inputs.gram.resize(36);
  const float diagonal[] = {1, 5, 2, 9, 5, 5};
  for (int64_t k = 0; k < 6; ++k) inputs.gram_row(k)[k] = diagonal[k];
  EXPECT_EQ(act_order(inputs), (std::vector<int32_t>{3, 1, 4, 5, 2, 0}));
  EXPECT_EQ(group_aware_order(inputs, 2), (std::vector<int32_t>{3, 2, 1, 0, 4, 5}));
}

TEST_F(GptqTest, PrunedWeightsStayZero) {
  const int64_t N = 8, K = 128;
  const InputStatistics inputs = correlated_inputs(K, 12);
  const Matrix w = random_matrix(N, K, 13);
  std::vector<uint8_t> keep(static_cast<size_t>(N * K));
  for (size_t i = 0; i < keep.size(); ++i) keep[i] = i % 4 < 2;
  for (const ColumnOrder order : {ColumnOrder::natural, ColumnOrder::act}) {
    const Matrix out = decoded(run(w, inputs, {.grid = {4, 32, false}, .order = order}, keep));
    int64_t kept = 0;
    for (size_t i = 0; i < keep.size(); ++i) {
      if (keep[i] == 0) {
        ASSERT_EQ(out.values[i], 0.0f);
      }
      kept += out.values[i] != 0.0f;
    }
    EXPECT_GT(kept, N * K / 3);
  }
}

TEST_F(GptqTest, DeadInputsAndSingularMoments) {
  InputStatistics inputs = correlated_inputs(32, 14);
  for (int64_t k = 0; k < 32; ++k) inputs.gram_row(3)[k] = inputs.gram_row(k)[3] = 0;
  const Matrix w = random_matrix(3, 32, 15);
  const Matrix out = decoded(run(w, inputs, {.grid = {4, 32}}));
  for (int64_t n = 0; n < 3; ++n) EXPECT_EQ(out.row(n)[3], 0.0f);
  // All channels the same: no damping, no factorization.
  InputStatistics same = inputs;
  std::fill(same.gram.begin(), same.gram.end(), 2.0f);
  EXPECT_GT(inverse_factor(same, 0, {}, pool_).damping, 0);
  std::fill(same.gram.begin(), same.gram.end(), NAN);
  message_of(ErrorKind::bad_file, [&] { inverse_factor(same, 0.01, {}, pool_); });
}

TEST_F(GptqTest, DoesNotDependOnThreads) {
  const InputStatistics inputs = correlated_inputs(160, 16);
  const Matrix w = random_matrix(70, 160, 17);
  const GptqOptions options{.grid = {4, 32}, .order = ColumnOrder::act};
  ThreadPool one(1, /*pin=*/false);
  const GridMatrix a = run(w, inputs, options);
  const GridMatrix b =
      gptq(w, {}, inverse_factor(inputs, 0.01, act_order(inputs), one), options, one);
  EXPECT_EQ(a.codes, b.codes);
  EXPECT_EQ(a.scales, b.scales);
}

}  // namespace
}  // namespace tandem
