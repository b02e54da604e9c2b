// Masks and survivors found together: the best of all masks where they can be counted, never worse
// than what came, the same on any number of threads.
#include "compress/mask_annealing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/random.h"
#include "compress/inverse_factor.h"
#include "compress/mask24.h"
#include "compress/masked_refit.h"
#include "compress/sparse_gpt.h"

namespace tandem {
namespace {

struct Problem {
  Matrix w;
  InputStatistics inputs;

  Problem(int64_t N, int64_t K, uint64_t seed) : w(N, K) {
    Random random(seed);
    for (float& x : w.values) x = static_cast<float>(random.normal());
    inputs.K = K;
    inputs.num_tokens = 4 * K;
    inputs.num_sequences = 1;
    inputs.gram.resize(static_cast<size_t>(K * K));
    std::vector<double> x(static_cast<size_t>(K));
    for (int64_t t = 0; t < inputs.num_tokens; ++t) {
      double shared = 0;  // what neighbours have in common
      for (double& value : x) value = shared = 0.8 * shared + 0.6 * random.normal();
      for (int64_t a = 0; a < K; ++a) {
        for (int64_t b = 0; b < K; ++b) {
          inputs.gram_row(a)[b] +=
              static_cast<float>(x[static_cast<size_t>(a)] * x[static_cast<size_t>(b)]);
        }
      }
    }
  }

  double damped(int64_t a, int64_t b) const {
    double mean = 0;
    for (int64_t k = 0; k < w.K; ++k) mean += inputs.gram_row(k)[k] / static_cast<double>(w.K);
    return inputs.gram_row(a)[b] + (a == b ? 0.01 * mean : 0.0);
  }
  // (v - w) H (v - w)^T of row n, H damped.
  double error(const Matrix& v, int64_t n) const {
    double sum = 0;
    for (int64_t a = 0; a < w.K; ++a) {
      for (int64_t b = 0; b < w.K; ++b) {
        sum += damped(a, b) * (v.row(n)[a] - w.row(n)[a]) * (v.row(n)[b] - w.row(n)[b]);
      }
    }
    return sum;
  }
};

// The least squares error of a row of eight weights under a mask: what the four that are gone cost,
// by elimination of the four that stay.
double error_of_mask(const Problem& p, int64_t n, uint8_t keep) {
  double h[8][8];
  for (int a = 0; a < 8; ++a) {
    for (int b = 0; b < 8; ++b) h[a][b] = p.damped(a, b);
  }
  for (int k = 0; k < 8; ++k) {
    if ((keep >> k & 1) == 0) continue;
    double pivot_row[8];
    std::copy_n(h[k], 8, pivot_row);
    for (int a = 0; a < 8; ++a) {
      const double factor = h[a][k] / pivot_row[k];
      for (int b = 0; b < 8; ++b) h[a][b] -= factor * pivot_row[b];
    }
  }
  double sum = 0;
  for (int a = 0; a < 8; ++a) {
    for (int b = 0; b < 8; ++b) {
      const bool gone = ((keep >> a | keep >> b) & 1) == 0;
      if (gone) sum += h[a][b] * p.w.row(n)[a] * p.w.row(n)[b];
    }
  }
  return sum;
}

// The largest two of each four, their weights as they are.
std::vector<uint8_t> magnitude(Matrix* w) {
  std::vector<uint8_t> keep;
  for (size_t i = 0; i < w->values.size(); i += 4) {
    float scores[4];
    for (size_t j = 0; j < 4; ++j) scores[j] = std::fabs(w->values[i + j]);
    const uint8_t kept = keep_highest(scores);
    for (size_t j = 0; j < 4; ++j) {
      keep.push_back(kept >> j & 1);
      if (keep.back() == 0) w->values[i + j] = 0;
    }
  }
  return keep;
}

TEST(MaskAnnealing, FindsTheBestMaskWhereAllCanBeTried) {
  const Problem problem(24, 8, 5);
  ThreadPool pool(2, /*pin=*/false);
  Matrix w = problem.w;
  std::vector<uint8_t> keep = magnitude(&w);
  anneal_mask(&w, &keep, problem.w, problem.inputs, {.sweeps = 200}, pool);
  int found = 0;
  for (int64_t n = 0; n < w.N; ++n) {
    double best = INFINITY;
    for (const uint8_t low : kPatterns24) {
      for (const uint8_t high : kPatterns24) {
        best = std::min(best, error_of_mask(problem, n, static_cast<uint8_t>(low | high << 4)));
      }
    }
    EXPECT_GE(problem.error(w, n), best * (1 - 1e-4)) << n;  // a floor, or one of the two is wrong
    found += problem.error(w, n) < best * (1 + 1e-3);
  }
  EXPECT_GE(found, 22);
}

TEST(MaskAnnealing, BeatsSparseGptWithItsSurvivorsRefitted) {
  const Problem problem(32, 96, 11);
  ThreadPool pool(2, /*pin=*/false);
  const InverseFactor factor = inverse_factor(problem.inputs, 0.01, {}, pool);
  Matrix w = problem.w;
  std::vector<uint8_t> keep = sparse_gpt(&w, factor, pool);
  Matrix refitted = w;
  refit_survivors(&refitted, problem.w, keep, problem.inputs, {}, pool);
  const Matrix first = w;
  anneal_mask(&w, &keep, problem.w, problem.inputs, {.seed = 1}, pool);
  double before = 0, after = 0;
  for (int64_t n = 0; n < w.N; ++n) {
    EXPECT_LE(problem.error(w, n), problem.error(first, n) * (1 + 1e-4)) << n;
    before += problem.error(refitted, n);
    after += problem.error(w, n);
  }
  EXPECT_LT(after, 0.95 * before);
  for (size_t i = 0; i < keep.size(); i += 4) {
    ASSERT_EQ(keep[i] + keep[i + 1] + keep[i + 2] + keep[i + 3], 2) << i;
    for (size_t j = i; j < i + 4; ++j) ASSERT_TRUE(keep[j] != 0 || w.values[j] == 0) << j;
  }
}

TEST(MaskAnnealing, IsTheSameOnAnyNumberOfThreads) {
  const Problem problem(16, 144, 3);
  const auto annealed = [&](int threads) {
    ThreadPool pool(threads, /*pin=*/false);
    Matrix w = problem.w;
    std::vector<uint8_t> keep = magnitude(&w);
    anneal_mask(&w, &keep, problem.w, problem.inputs, {.sweeps = 8, .seed = 5}, pool);
    return std::pair(w.values, keep);
  };
  EXPECT_EQ(annealed(1), annealed(3));
}

}  // namespace
}  // namespace tandem
