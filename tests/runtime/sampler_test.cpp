#include "runtime/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"

namespace tandem {
namespace {

using Logits = std::vector<float>;

std::vector<float> random_logits(size_t n, uint64_t seed) {
  Random random(seed);
  Logits logits(n);
  for (float& logit : logits) logit = static_cast<float>(3 * random.normal());
  return logits;
}

// How often each token comes in `draws` draws from the same logits.
std::map<int32_t, int> histogram(SamplingParams params, const Logits& logits, int draws) {
  Sampler sampler(params, static_cast<int64_t>(logits.size()), {});
  std::map<int32_t, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[sampler.sample(logits)];
  return counts;
}

std::vector<int32_t> kept(SamplingParams params, const Logits& logits) {
  std::vector<int32_t> ids;
  for (const auto& [id, count] : histogram(params, logits, 4000)) ids.push_back(id);
  return ids;
}

// Logits of the given probabilities, scattered so that order by id is not order by probability.
const Logits kHandMade{std::log(0.1f), std::log(0.4f), std::log(0.05f), std::log(0.3f),
                       std::log(0.15f)};

TEST(Sampler, GreedyIsTheArgmaxAndTiesGoToTheLowestId) {
  for (const size_t n : {1u, 5u, 16u, 17u, 1000u}) {
    const Logits logits = random_logits(n, n);
    const auto best = std::ranges::max_element(logits) - logits.begin();
    EXPECT_EQ(Sampler({}, static_cast<int64_t>(n), {}).sample(logits), best);
  }
  Logits tied(40, 1.0f);
  tied[33] = tied[21] = 2.0f;
  EXPECT_EQ(Sampler({}, 40, {}).sample(tied), 21);
  EXPECT_EQ(Sampler({.temperature = 1, .top_k = 1}, 40, {}).sample(tied), 21);
}

TEST(Sampler, TopKOneIsGreedy) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const Logits logits = random_logits(300, seed);
    const int32_t best = Sampler({}, 300, {}).sample(logits);
    EXPECT_EQ(Sampler({.temperature = 5, .top_k = 1, .seed = seed}, 300, {}).sample(logits), best);
    EXPECT_EQ(Sampler({.temperature = 1e-6f, .seed = seed}, 300, {}).sample(logits), best);
  }
}

TEST(Sampler, MasksExactly) {
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(kept({.temperature = 1}, kHandMade), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(kept({.temperature = 1, .top_k = 2}, kHandMade), (Ids{1, 3}));
  EXPECT_EQ(kept({.temperature = 1, .top_k = 4}, kHandMade), (Ids{0, 1, 3, 4}));
  EXPECT_EQ(kept({.temperature = 1, .top_k = 99}, kHandMade), (Ids{0, 1, 2, 3, 4}));
  // 0.4, 0.7, 0.85, 0.95, 1: the token that crosses the border stays in.
  EXPECT_EQ(kept({.temperature = 1, .top_p = 0.39f}, kHandMade), (Ids{1}));
  EXPECT_EQ(kept({.temperature = 1, .top_p = 0.41f}, kHandMade), (Ids{1, 3}));
  EXPECT_EQ(kept({.temperature = 1, .top_p = 0.84f}, kHandMade), (Ids{1, 3, 4}));
  EXPECT_EQ(kept({.temperature = 1, .top_p = 0.86f}, kHandMade), (Ids{0, 1, 3, 4}));
  EXPECT_EQ(kept({.temperature = 1, .top_p = 1e-9f}, kHandMade), (Ids{1}));
  // min-p is relative to the largest: 0.3/0.4 = 0.75, 0.15/0.4 = 0.375, 0.1/0.4 = 0.25.
  EXPECT_EQ(kept({.temperature = 1, .min_p = 0.74f}, kHandMade), (Ids{1, 3}));
  EXPECT_EQ(kept({.temperature = 1, .min_p = 0.26f}, kHandMade), (Ids{1, 3, 4}));
  EXPECT_EQ(kept({.temperature = 1, .min_p = 1.0f}, kHandMade), (Ids{1}));
  // top-p counts what top-k left: 0.4 of 0.7 is 0.57.
  EXPECT_EQ(kept({.temperature = 1, .top_k = 2, .top_p = 0.56f}, kHandMade), (Ids{1}));
  EXPECT_EQ(kept({.temperature = 1, .top_k = 2, .top_p = 0.58f}, kHandMade), (Ids{1, 3}));
}

TEST(Sampler, FollowsTheDistribution) {
  constexpr int kDraws = 200000;
  const auto counts = histogram({.temperature = 1, .seed = 9}, kHandMade, kDraws);
  const double expected[] = {0.1, 0.4, 0.05, 0.3, 0.15};
  for (int id = 0; id < 5; ++id) {
    const double sigma = std::sqrt(expected[id] * (1 - expected[id]) / kDraws);
    EXPECT_NEAR(counts.at(id) / static_cast<double>(kDraws), expected[id], 5 * sigma) << id;
  }
  // Temperature 2 takes square roots of the probabilities.
  const auto warm = histogram({.temperature = 2, .seed = 9}, kHandMade, kDraws);
  EXPECT_NEAR(static_cast<double>(warm.at(1)) / warm.at(0), 2.0, 0.05);
}

TEST(Sampler, RepeatsWithTheSeedAndNotWithAnother) {
  const Logits logits = random_logits(500, 3);
  const auto draw = [&](uint64_t seed) {
    Sampler sampler({.temperature = 2, .top_p = 0.9f, .seed = seed}, 500, {});
    std::vector<int32_t> tokens;
    for (int i = 0; i < 50; ++i) tokens.push_back(sampler.sample(logits));
    return tokens;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

TEST(Sampler, PenalizesPromptAndAnswer) {
  const std::vector<int32_t> prompt{1, 1};
  Sampler sampler({.repetition_penalty = 2}, 3, prompt);
  const Logits logits{3.0f, 4.0f, 1.9f};
  EXPECT_EQ(sampler.sample(logits), 0);  // 1 is seen: 4 / 2 = 2 < 3
  EXPECT_EQ(sampler.sample(logits), 1);  // 0 is now 1.5, 1 is 2, once however often it was seen
  const Logits negative{-1.0f, -1.5f, -1.9f};
  Sampler all_seen({.repetition_penalty = 2}, 3, std::vector<int32_t>{0});
  EXPECT_EQ(all_seen.sample(negative), 1);  // -1 * 2 < -1.5
}

TEST(Sampler, RefusesWhatIsNotANumber) {
  for (const size_t at : {0u, 7u, 16u, 39u}) {
    Logits logits(40, 0.5f);
    logits[at] = std::nanf("");
    for (const float temperature : {0.0f, 1.0f}) {
      try {
        Sampler({.temperature = temperature}, 40, {}).sample(logits);
        FAIL() << "accepted NaN";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind, ErrorKind::system);
        EXPECT_NE(std::string(error.what()).find("token " + std::to_string(at) + " is NaN"),
                  std::string::npos)
            << error.what();
      }
    }
  }
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_THROW(Sampler({}, 3, {}).sample(Logits(3, -infinity)), Error);
  EXPECT_THROW(Sampler({}, 3, {}).sample(Logits{0, infinity, 0}), Error);
  // A masked token is fine and never drawn.
  EXPECT_EQ(kept({.temperature = 1}, Logits{0, -infinity, 0}), (std::vector<int32_t>{0, 2}));
}

TEST(CheckSampling, NamesTheParameterOutOfRange) {
  const float nan = std::nanf("");
  const SamplingParams bad[] = {{.temperature = -1},
                                {.temperature = nan},
                                {.temperature = 999999},
                                {.top_k = -1},
                                {.top_p = 0},
                                {.top_p = 1.1f},
                                {.top_p = nan},
                                {.min_p = 2},
                                {.min_p = -0.1f},
                                {.repetition_penalty = 0},
                                {.repetition_penalty = nan}};
  for (const SamplingParams& params : bad) EXPECT_THROW(check_sampling(params), Error);
  EXPECT_NO_THROW(check_sampling({}));
  EXPECT_NO_THROW(
      check_sampling({.temperature = 1, .top_k = 1 << 30, .top_p = 1e-30f, .min_p = 1}));
}

}  // namespace
}  // namespace tandem
