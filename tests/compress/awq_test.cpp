// AWQ's scales, search and clipping on matrices small enough to work out.
#include "compress/awq.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/random.h"

namespace tandem {
namespace {

constexpr IntegerGrid kGroupsOf4{4, 4, false, ScaleType::f32};

Matrix random_matrix(int64_t N, int64_t K, uint64_t seed) {
  Matrix w(N, K);
  Random random(seed);
  for (float& value : w.values) value = static_cast<float>(random.normal());
  return w;
}

std::vector<float> gram_of(const Matrix& x) {
  std::vector<float> gram(static_cast<size_t>(x.K * x.K));
  for (int64_t t = 0; t < x.N; ++t) {
    for (int64_t i = 0; i < x.K; ++i) {
      for (int64_t j = 0; j < x.K; ++j)
        gram[static_cast<size_t>(i * x.K + j)] += x.row(t)[i] * x.row(t)[j];
    }
  }
  return gram;
}

TEST(Awq, RelativeMagnitudesAreMeansOverRowsOfAllLinears) {
  Matrix a(1, 4), b(2, 4);
  a.values = {1, -2, 4, 8};
  b.values = {3, 3, 1, 2, 0, 0, 0, 0};
  const std::vector<const Matrix*> linears = {&a, &b};
  const std::vector<float> wm = relative_magnitudes(linears, 2);
  EXPECT_NEAR(wm[0], (0.5 + 1 + 0) / 3, 1e-6);
  EXPECT_NEAR(wm[1], (1.0 + 1 + 0) / 3, 1e-6);
  EXPECT_NEAR(wm[2], (0.5 + 0.5 + 0) / 3, 1e-6);
  EXPECT_NEAR(wm[3], (1.0 + 1 + 0) / 3, 1e-6);
}

TEST(Awq, ScalesAreTheDefinitions) {
  const std::vector<float> xm = {4, 1, 0.25}, wm = {0.25, 1, 0.25};
  const std::vector<float> plain = awq_scales(xm, wm, 0.5f, false);
  EXPECT_FLOAT_EQ(plain[0], 2);  // sqrt(4) / sqrt(2 * 0.5)
  EXPECT_FLOAT_EQ(plain[1], 1);
  EXPECT_FLOAT_EQ(plain[2], 0.5);
  for (const float scale : awq_scales(xm, wm, 0.0f, false)) EXPECT_EQ(scale, 1.0f);
  const std::vector<float> duo = awq_scales(xm, wm, 0.5f, true);
  const float raw[] = {2 / (0.5f + 1e-4f), 1 / (1 + 1e-4f), 0.5f / (0.5f + 1e-4f)};
  const float middle = std::sqrt(raw[0] * std::min(raw[1], raw[2]));
  for (size_t k = 0; k < 3; ++k) EXPECT_FLOAT_EQ(duo[k], raw[k] / middle);
}

TEST(Awq, ASilentChannelDoesNotMakeScalesInfinite) {
  const std::vector<float> scales =
      awq_scales(std::vector<float>{0, 1}, std::vector<float>{0, 1}, 0.95f, true);
  for (const float scale : scales) EXPECT_TRUE(std::isfinite(scale) && scale > 0) << scale;
}

TEST(Awq, TheSearchTakesTheLeastLossAndRestoresTheWeights) {
  ThreadPool pool(2, false);
  Matrix w = random_matrix(6, 8, 1);
  const Matrix before = w;
  Matrix* linears[] = {&w};
  const std::vector<float> xm = {9, 1, 1, 1, 0.1f, 1, 1, 3};
  AwqOptions options{kGroupsOf4};
  int calls = 0;
  // The 7th trial is made the best.
  const ScaleChoice choice = search_scales(linears, xm, options, pool, {[&] {
    EXPECT_NE(w.values, before.values);
    return std::fabs(++calls - 7.0);
  }});
  EXPECT_EQ(calls, 20);
  EXPECT_FLOAT_EQ(choice.ratio, 6.0f / 20);
  EXPECT_EQ(choice.loss, 0.0);
  EXPECT_TRUE(choice.duo_scaling);
  EXPECT_EQ(w.values, before.values);
  const Matrix* readable[] = {&w};
  EXPECT_EQ(choice.scales, awq_scales(xm, relative_magnitudes(readable, 4), choice.ratio, true));

  options.duo_scaling = DuoScaling::both;
  calls = 0;
  search_scales(linears, xm, options, pool, {[&] { return static_cast<double>(++calls); }});
  EXPECT_EQ(calls, 40);
}

TEST(Awq, TheFinalistsOfTheRoughLossMeetTheExactOne) {
  ThreadPool pool(1, false);
  Matrix w = random_matrix(6, 8, 1);
  Matrix* linears[] = {&w};
  const std::vector<float> xm = {9, 1, 1, 1, 0.1f, 1, 1, 3};
  int rough = 0, exact = 0;
  // By the rough loss the 12th trial is best, then the 11th, 13th and 10th.
  const ScaleChoice choice =
      search_scales(linears, xm, {kGroupsOf4}, pool,
                    {[&] { return std::fabs(++exact - 3.0); },
                     [&] { return std::fabs(++rough - 11.9); }});
  EXPECT_EQ(rough, 20);
  EXPECT_EQ(exact, 4);
  EXPECT_FLOAT_EQ(choice.ratio, 12.0f / 20);  // the 13th trial is the third to meet it
  EXPECT_EQ(choice.loss, 0.0);
}

TEST(Awq, ATrialIsTheRoundingOfTheScaledWeights) {
  ThreadPool pool(1, false);
  Matrix w = random_matrix(3, 8, 2);
  const Matrix before = w;
  Matrix* linears[] = {&w};
  const std::vector<float> xm = {9, 1, 1, 1, 0.1f, 1, 1, 3};
  const Matrix* readable[] = {&before};
  const std::vector<float> wm = relative_magnitudes(readable, 4);
  int trial = 0;
  search_scales(linears, xm, {kGroupsOf4, 3}, pool, {[&] {
    const std::vector<float> scales = awq_scales(xm, wm, static_cast<float>(trial++) / 3.0f, true);
    Matrix scaled = before;
    for (size_t i = 0; i < scaled.values.size(); ++i) scaled.values[i] *= scales[i % 8];
    const GridMatrix rounded = round_to_nearest(scaled, kGroupsOf4, pool);
    std::vector<float> row(8);
    for (int64_t n = 0; n < 3; ++n) {
      decode_row(rounded, n, row.data());
      for (size_t k = 0; k < 8; ++k) EXPECT_FLOAT_EQ(w.row(n)[k], row[k] / scales[k]);
    }
    return 1.0;
  }});
  EXPECT_EQ(trial, 3);
}

TEST(Awq, ScalingLowersTheErrorWhereOneChannelIsLoud) {
  ThreadPool pool(2, false);
  Matrix w = random_matrix(32, 32, 3), x = random_matrix(200, 32, 4);
  for (int64_t t = 0; t < x.N; ++t) x.row(t)[5] *= 30.0f;
  std::vector<float> xm(32);
  for (int64_t t = 0; t < x.N; ++t) {
    for (size_t k = 0; k < 32; ++k) xm[k] += std::fabs(x.row(t)[k]) / static_cast<float>(x.N);
  }
  const Matrix before = w;
  Matrix* linears[] = {&w};
  const auto loss = [&] {
    double sum = 0;
    for (int64_t t = 0; t < x.N; ++t) {
      for (int64_t n = 0; n < w.N; ++n) {
        double off = 0;
        for (int64_t k = 0; k < w.K; ++k) off += x.row(t)[k] * (w.row(n)[k] - before.row(n)[k]);
        sum += off * off;
      }
    }
    return sum;
  };
  const IntegerGrid grid{4, 16, false, ScaleType::f32};
  double unscaled = 0;  // the first trial of s = xm^r has r = 0
  const ScaleChoice choice = search_scales(linears, xm, {grid, 20, DuoScaling::off}, pool, {[&] {
    const double now = loss();
    if (unscaled == 0) unscaled = now;
    return now;
  }});
  EXPECT_LT(choice.loss, 0.3 * unscaled);
  EXPECT_GT(choice.scales[5], 2.0f);
}

TEST(Awq, NoFiniteLossIsRefused) {
  ThreadPool pool(1, false);
  Matrix w = random_matrix(1, 4, 1);
  Matrix* linears[] = {&w};
  EXPECT_THROW(search_scales(linears, std::vector<float>(4, 1.0f), {kGroupsOf4}, pool,
                             {[] { return std::nan(""); }}),
               Error);
}

// Clipping by the text: every bound tried with all tokens.
void define_clip(Matrix& w, const Matrix& x, const IntegerGrid& grid) {
  for (int64_t n = 0; n < w.N; ++n) {
    for (int64_t first = 0; first < w.K; first += grid.group) {
      float* group = w.row(n) + first;
      float largest = 0, best_bound = 0;
      for (int64_t i = 0; i < grid.group; ++i) largest = std::max(largest, std::fabs(group[i]));
      double least = 1e300;
      for (int step = 0; step < 10; ++step) {
        const float bound = largest * (1.0f - static_cast<float>(step) / 20);
        std::vector<float> clipped(group, group + grid.group);
        for (float& value : clipped) value = std::clamp(value, -bound, bound);
        const GroupFit fit = fit_group(grid, clipped.data(), grid.group);
        double error = 0;
        for (int64_t t = 0; t < x.N; ++t) {
          double off = 0;
          for (int64_t i = 0; i < grid.group; ++i) {
            off += x.row(t)[first + i] *
                   (value_of(fit, code_of(grid, fit, clipped[static_cast<size_t>(i)])) - group[i]);
          }
          error += off * off;
        }
        if (error < least * (1 - 1e-6)) {
          least = error;
          best_bound = bound;
        }
      }
      for (int64_t i = 0; i < grid.group; ++i)
        group[i] = std::clamp(group[i], -best_bound, best_bound);
    }
  }
}

TEST(Awq, ClippingIsTheDefinitionOverAllTokens) {
  ThreadPool pool(2, false);
  Matrix w = random_matrix(20, 32, 6), by_text = w;
  const Matrix before = w, x = random_matrix(64, 32, 7);
  const IntegerGrid grid{3, 16, false, ScaleType::f32};
  clip_weights(w, gram_of(x), {grid}, pool);
  define_clip(by_text, x, grid);
  EXPECT_EQ(w.values, by_text.values);
  EXPECT_NE(w.values, before.values);  // something was clipped
}

TEST(Awq, OneBoundIsNoClipping) {
  ThreadPool pool(1, false);
  Matrix w = random_matrix(2, 8, 8);
  const Matrix before = w;
  AwqOptions options{kGroupsOf4};
  options.num_clips = 1;
  clip_weights(w, std::vector<float>(64, 1.0f), options, pool);
  EXPECT_EQ(w.values, before.values);
}

}  // namespace
}  // namespace tandem
