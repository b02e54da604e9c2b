// SparseGPT, Wanda and the refit of survivors against plain definitions in double.
#include "compress/sparse_gpt.h"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <cmath>

#include "base/random.h"
#include "compress/mask24.h"
#include "compress/masked_refit.h"

namespace tandem {
namespace {

using Square = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct Problem {
  Matrix w;
  InputStatistics inputs;
  Square H;  // damped
  ThreadPool pool{2, /*pin=*/false};

  // Inputs whose channels hang together and differ in size.
  Problem(int64_t N, int64_t K, uint64_t seed, double damping = 0.01) : w(N, K) {
    Random random(seed);
    for (float& x : w.values) x = static_cast<float>(random.normal());
    inputs.K = K;
    inputs.num_tokens = 2 * K;
    inputs.gram.resize(static_cast<size_t>(K * K));
    for (int64_t t = 0; t < inputs.num_tokens; ++t) {
      std::vector<float> x(static_cast<size_t>(K));
      const double common = random.normal();
      for (int64_t k = 0; k < K; ++k) {
        const double size = k % 3 == 0 ? 3.0 : 0.7;
        x[static_cast<size_t>(k)] = static_cast<float>(size * (random.normal() + common));
      }
      for (int64_t a = 0; a < K; ++a) {
        for (int64_t b = 0; b < K; ++b) {
          inputs.gram_row(a)[b] += x[static_cast<size_t>(a)] * x[static_cast<size_t>(b)];
        }
      }
    }
    H.resize(K, K);
    for (int64_t a = 0; a < K; ++a) {
      for (int64_t b = 0; b < K; ++b) H(a, b) = inputs.gram_row(a)[b];
    }
    H += damping * H.diagonal().mean() * Square::Identity(K, K);
  }
};

// The paper's algorithm, unblocked: H^-1 = U^T U.
struct PlainSparseGpt {
  Square w;
  std::vector<uint8_t> keep;

  explicit PlainSparseGpt(const Problem& problem) {
    const int64_t N = problem.w.N, K = problem.w.K;
    const Square U = Eigen::LLT<Square>(problem.H.inverse()).matrixU();
    w.resize(N, K);
    keep.resize(static_cast<size_t>(N * K));
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t k = 0; k < K; ++k) w(n, k) = problem.w.row(n)[k];
      for (int64_t k = 0; k < K; ++k) {
        uint8_t* mask = keep.data() + n * K;
        if (k % 4 == 0) {
          for (int64_t j = k; j < k + 4; ++j) {
            int64_t below = 0;  // of the four, how many cost less
            for (int64_t i = k; i < k + 4; ++i) {
              below += std::pow(w(n, i) / U(i, i), 2) < std::pow(w(n, j) / U(j, j), 2);
            }
            mask[j] = below >= 2;
          }
        }
        if (mask[k] != 0) continue;
        const double error = w(n, k) / U(k, k);
        for (int64_t j = k; j < K; ++j) w(n, j) -= error * U(k, j);
        w(n, k) = 0;
      }
    }
  }
};

void expect_two_of_four(const Matrix& w, const std::vector<uint8_t>& keep) {
  for (size_t i = 0; i < keep.size(); i += 4) {
    EXPECT_EQ(keep[i] + keep[i + 1] + keep[i + 2] + keep[i + 3], 2) << i;
    for (size_t j = i; j < i + 4; ++j) {
      EXPECT_TRUE(keep[j] != 0 || w.values[j] == 0.0f) << j;
    }
  }
}

TEST(SparseGpt, IsThePapersAlgorithm) {
  // Wider than a block of columns, so that errors cross from one to the next.
  Problem problem(5, 144, 1);
  const PlainSparseGpt want(problem);
  Matrix w = problem.w;
  const auto keep =
      sparse_gpt(&w, inverse_factor(problem.inputs, 0.01, {}, problem.pool), problem.pool);
  EXPECT_EQ(keep, want.keep);
  expect_two_of_four(w, keep);
  for (int64_t n = 0; n < w.N; ++n) {
    for (int64_t k = 0; k < w.K; ++k) EXPECT_NEAR(w.row(n)[k], want.w(n, k), 2e-3) << n << " " << k;
  }
}

TEST(SparseGpt, FeedbackUnderItsOwnMaskIsTheSame) {
  Problem problem(7, 64, 2);
  const InverseFactor factor = inverse_factor(problem.inputs, 0.01, {}, problem.pool);
  Matrix chosen = problem.w, given = problem.w;
  const auto keep = sparse_gpt(&chosen, factor, problem.pool);
  apply_mask_with_feedback(&given, keep, factor, problem.pool);
  EXPECT_EQ(given.values, chosen.values);
}

TEST(SparseGpt, ZerosKeepTheHigherPlaces) {
  Problem problem(2, 8, 3);
  std::ranges::fill(problem.w.values, 0.0f);
  const InverseFactor factor = inverse_factor(problem.inputs, 0.01, {}, problem.pool);
  const std::vector<uint8_t> last_two = {0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1};
  EXPECT_EQ(sparse_gpt(&problem.w, factor, problem.pool), last_two);
  EXPECT_EQ(wanda_mask(problem.w, problem.inputs, problem.pool), last_two);
}

TEST(Wanda, WeighsMagnitudesByTheInputsNorms) {
  Matrix w(1, 4);
  w.values = {4, -1, 3, 2};
  InputStatistics inputs;
  inputs.K = 4;
  inputs.gram.resize(16);
  const float norms[] = {1, 9, 1, 2};
  for (int64_t k = 0; k < 4; ++k) inputs.gram_row(k)[k] = norms[k] * norms[k];
  ThreadPool pool(1, /*pin=*/false);
  // Scores 4, 9, 3, 4: of the two that are equal the lower index goes.
  EXPECT_EQ(wanda_mask(w, inputs, pool), (std::vector<uint8_t>{0, 1, 0, 1}));
}

// Each row by itself: the survivors' normal equations.
TEST(MaskedRefit, IsTheLeastSquaresSolution) {
  Problem problem(6, 32, 4);
  const auto keep = wanda_mask(problem.w, problem.inputs, problem.pool);
  Matrix w = problem.w;
  refit_survivors(&w, problem.w, keep, problem.inputs, {.tolerance = 1e-6}, problem.pool);
  expect_two_of_four(w, keep);
  for (int64_t n = 0; n < w.N; ++n) {
    std::vector<int64_t> kept;
    for (int64_t k = 0; k < w.K; ++k) {
      if (keep[static_cast<size_t>(n * w.K + k)] != 0) kept.push_back(k);
    }
    const auto size = static_cast<int64_t>(kept.size());
    Square A(size, size);
    Eigen::VectorXd b(size), row(w.K);
    for (int64_t k = 0; k < w.K; ++k) row(k) = problem.w.row(n)[k];
    for (int64_t i = 0; i < size; ++i) {
      b(i) = problem.H.row(kept[static_cast<size_t>(i)]).dot(row);
      for (int64_t j = 0; j < size; ++j) {
        A(i, j) = problem.H(kept[static_cast<size_t>(i)], kept[static_cast<size_t>(j)]);
      }
    }
    const Eigen::VectorXd x = A.ldlt().solve(b);
    for (int64_t i = 0; i < size; ++i) {
      EXPECT_NEAR(w.row(n)[kept[static_cast<size_t>(i)]], x(i), 1e-4) << n << " " << i;
    }
  }
}

// What the methods are for: each of these changes the outputs less than the one before it.
TEST(MaskedRefit, MethodsStandInTheirOrder) {
  Problem problem(32, 128, 5);
  const auto error = [&](const Matrix& w) {
    return output_error(w, problem.w, problem.inputs, problem.pool);
  };
  const auto masked = [&](const std::vector<uint8_t>& keep) {
    Matrix w = problem.w;
    for (size_t i = 0; i < keep.size(); ++i) w.values[i] *= static_cast<float>(keep[i]);
    return w;
  };
  std::vector<uint8_t> random_keep(problem.w.values.size()), largest(random_keep.size());
  for (int64_t n = 0; n < problem.w.N; ++n) {
    std::vector<uint8_t> a(32), b(32);
    keep_random_of_row(1, n, a);
    keep_largest_of_row({problem.w.row(n), 128}, b);
    for (size_t k = 0; k < 128; ++k) {
      random_keep[static_cast<size_t>(n) * 128 + k] = a[k / 4] >> (k % 4) & 1;
      largest[static_cast<size_t>(n) * 128 + k] = b[k / 4] >> (k % 4) & 1;
    }
  }
  const auto wanda = wanda_mask(problem.w, problem.inputs, problem.pool);
  Matrix feedback = problem.w;
  const auto keep = sparse_gpt(
      &feedback, inverse_factor(problem.inputs, 0.01, {}, problem.pool), problem.pool);
  Matrix refitted = feedback;
  refit_survivors(&refitted, problem.w, keep, problem.inputs, {}, problem.pool);
  EXPECT_LT(error(masked(largest)), error(masked(random_keep)));
  EXPECT_LT(error(masked(wanda)), error(masked(largest)));
  EXPECT_LT(error(feedback), error(masked(wanda)));
  EXPECT_LT(error(refitted), error(feedback));
}

}  // namespace
}  // namespace tandem
