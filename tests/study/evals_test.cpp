// Perplexity and divergence against distributions whose numbers are known by hand.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/random.h"
#include "study/evals/agreement.h"
#include "study/evals/evaluate.h"
#include "study/evals/perplexity.h"

namespace tandem {
namespace {

constexpr int64_t kVocabulary = 16;

// Gives token t + 1 (mod V) the probability p after token t, the others the rest in equal shares.
LogitSource next_token_source(double p) {
  return [p](std::span<const int32_t> tokens, int64_t first, const auto& sink) {
    std::vector<float> logits(kVocabulary);
    for (int64_t i = first; i < static_cast<int64_t>(tokens.size()); ++i) {
      const double rest = (1 - p) / (kVocabulary - 1);
      std::fill(logits.begin(), logits.end(), static_cast<float>(std::log(rest)) + 3.0f);
      const auto next = static_cast<size_t>((tokens[static_cast<size_t>(i)] + 1) % kVocabulary);
      logits[next] = static_cast<float>(std::log(p)) + 3.0f;
      sink(i, logits.data());
    }
  };
}

std::vector<double> nll_of(const LogitSource& source, const std::vector<int32_t>& window) {
  const std::vector<float> logits = scored_logits(source, window, kVocabulary);
  std::vector<double> nll;
  for (int64_t p = 0; p < kScoredPerWindow; ++p) {
    const float* row = logits.data() + p * kVocabulary;
    nll.push_back(log_sum_exp(row, kVocabulary) -
                  static_cast<double>(row[window[static_cast<size_t>(kFirstScored + p + 1)]]));
  }
  return nll;
}

std::vector<int32_t> counting_text(size_t length) {
  std::vector<int32_t> text(length);
  for (size_t i = 0; i < length; ++i) text[i] = static_cast<int32_t>(i % kVocabulary);
  return text;
}

TEST(Perplexity, WindowsDoNotOverlapAndTheTailIsDropped) {
  const auto text = counting_text(1100);
  const auto windows = cut_windows(text, 2, -1);
  ASSERT_EQ(windows.size(), 2u);
  EXPECT_EQ(windows[1].size(), 512u);
  EXPECT_EQ(windows[1].front(), text[512]);
  EXPECT_EQ(cut_windows(text, 2, 9)[1].front(), 9);
  EXPECT_EQ(cut_windows(text, 2, 9)[0][1], text[0]);
  EXPECT_EQ(cut_windows(text, 2, 9)[1][1], text[512]);
  EXPECT_THROW(cut_windows(text, 3, -1), Error);
}

TEST(Perplexity, OfAKnownSource) {
  const auto windows = cut_windows(counting_text(1024), 2, -1);
  std::vector<double> nll;
  for (const auto& window : windows) {
    const auto values = nll_of(next_token_source(0.25), window);
    EXPECT_EQ(values.size(), 255u);
    nll.insert(nll.end(), values.begin(), values.end());
  }
  const MeanError result = perplexity(nll);
  EXPECT_NEAR(result.mean, 4.0, 1e-5);
  EXPECT_NEAR(result.error, 0.0, 1e-5);
}

TEST(Perplexity, StandardErrorByHand) {
  // nll 1, 2, 3: mean 2, population variance 2/3, error sqrt(2/3 / 2)
  const double nll[] = {1, 2, 3};
  const MeanError result = perplexity(nll);
  EXPECT_NEAR(result.mean, std::exp(2.0), 1e-12);
  EXPECT_NEAR(result.error, std::exp(2.0) * std::sqrt(1.0 / 3.0), 1e-12);
  EXPECT_TRUE(std::isnan(perplexity({}).mean));
  const double one[] = {2.0};
  EXPECT_EQ(perplexity(one).error, 0);
}

TEST(Perplexity, NanLogitsStayNan) {
  std::vector<float> logits(kVocabulary, 0.5f);
  EXPECT_FALSE(std::isnan(log_sum_exp(logits.data(), kVocabulary)));
  for (const size_t where : {size_t{0}, size_t{7}}) {
    std::vector<float> bad = logits;
    bad[where] = std::nanf("");
    EXPECT_TRUE(std::isnan(log_sum_exp(bad.data(), kVocabulary)));
  }
}

TEST(Perplexity, LargeLogitsDoNotOverflow) {
  const float logits[] = {1000.0f, 999.0f};
  EXPECT_NEAR(log_sum_exp(logits, 2), 1000 + std::log1p(std::exp(-1.0)), 1e-6);
}

PositionAgreement compare(const std::vector<float>& a, const std::vector<float>& b) {
  const auto V = static_cast<int64_t>(a.size());
  return agreement(a.data(), log_sum_exp(a.data(), V), b.data(), log_sum_exp(b.data(), V), V);
}

// Two models that miss by the same tokens differ by far less than each of them varies.
TEST(Agreement, TheRatioOfPerplexitiesIsPaired) {
  std::vector<int32_t> text = counting_text(512);
  Random random(3);
  for (int32_t& token : text) {
    if (random.below(4) == 0) token = static_cast<int32_t>(random.below(kVocabulary));
  }
  const std::vector<ScoredSpan> windows = {{text, 256}};
  const TextResult result =
      evaluate_text(next_token_source(0.5), next_token_source(0.6), windows, kVocabulary, {});
  const TextResult baseline =
      evaluate_text(next_token_source(0.6), nullptr, windows, kVocabulary, {});
  const double apart = std::log(result.perplexity.mean / baseline.perplexity.mean);
  ASSERT_TRUE(result.log_ratio.has_value());
  EXPECT_NEAR(result.log_ratio->mean, apart, 1e-9);
  const double unpaired = std::hypot(result.perplexity.error / result.perplexity.mean,
                                     baseline.perplexity.error / baseline.perplexity.mean);
  EXPECT_GT(result.log_ratio->error, 0);
  EXPECT_LT(result.log_ratio->error, 0.3 * unpaired);
  EXPECT_FALSE(baseline.log_ratio.has_value());
}

TEST(Agreement, IdenticalAndShiftedLogitsHaveNoDivergence) {
  Random random(1);
  std::vector<float> a(1000);
  for (float& x : a) x = static_cast<float>(4 * random.normal());
  EXPECT_EQ(compare(a, a).kl_divergence, 0);
  EXPECT_TRUE(compare(a, a).same_top);
  std::vector<float> shifted = a;
  for (float& x : shifted) x += 2.0f;
  EXPECT_NEAR(compare(a, shifted).kl_divergence, 0, 1e-6);
}

TEST(Agreement, KnownDivergenceAndTop) {
  // p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4): KL = 1/2 ln 2 - 1/4 ln 2
  const std::vector<float> p = {std::log(0.5f), std::log(0.25f), std::log(0.25f)};
  const std::vector<float> q = {std::log(0.25f), std::log(0.5f), std::log(0.25f)};
  EXPECT_NEAR(compare(p, q).kl_divergence, 0.25 * std::log(2.0), 1e-7);
  EXPECT_FALSE(compare(p, q).same_top);
}

TEST(Agreement, ImprobableTokensAreLeftOut) {
  const std::vector<float> p = {0.0f, -40.0f};
  const std::vector<float> q = {0.0f, -90.0f};
  EXPECT_NEAR(compare(p, q).kl_divergence, 0, 1e-7);
}

TEST(Agreement, MeanAndItsError) {
  const double values[] = {0.1, 0.3};
  EXPECT_NEAR(mean_error(values).mean, 0.2, 1e-12);
  EXPECT_NEAR(mean_error(values).error, 0.1, 1e-12);
}

}  // namespace
}  // namespace tandem
