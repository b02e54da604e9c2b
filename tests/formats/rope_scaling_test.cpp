#include "formats/rope_scaling.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tandem {
namespace {

ModelConfig llama3(int64_t head_dim, double factor, int64_t original_context) {
  ModelConfig config;
  config.head_dim = head_dim;
  config.rope_theta = 5e5;
  config.rope_scaling = RopeScaling::llama3;
  config.rope_factor = factor;
  config.rope_original_context = original_context;
  return config;
}

// As a GGUF file holds it: fp32 divisors of fp32 frequencies.
ModelConfig with_divisors(const ModelConfig& config) {
  ModelConfig out = config;
  out.rope_scaling = RopeScaling::divisors;
  for (int64_t d = 0; d < config.head_dim; d += 2) {
    const float exponent = static_cast<float>(d) / static_cast<float>(config.head_dim);
    const float inv_freq = 1.0f / std::pow(static_cast<float>(config.rope_theta), exponent);
    out.rope_divisors.push_back(static_cast<float>(llama3_divisor(inv_freq, config)));
  }
  out.rope_factor = 1;
  out.rope_original_context = 0;
  return out;
}

TEST(RopeScaling, DivisorsKeepShortWavesAndJoinTheTwoByARamp) {
  const ModelConfig config = llama3(128, 8, 8192);
  const double one_turn = 2 * M_PI / 8192;
  EXPECT_EQ(llama3_divisor(4.01 * one_turn, config), 1);
  EXPECT_EQ(llama3_divisor(0.99 * one_turn, config), 8);
  EXPECT_NEAR(llama3_divisor(2.5 * one_turn, config), 1 / (0.5 / 8 + 0.5), 1e-12);
}

TEST(RopeScaling, DivisorsOfPublishedModelsAreRecognised) {
  for (const ModelConfig& config :
       {llama3(128, 8, 8192), llama3(64, 32, 8192), llama3(10, 4, 100)}) {
    const auto found = divisors_as_llama3(with_divisors(config));
    ASSERT_TRUE(found.has_value()) << config.head_dim;
    EXPECT_EQ(found->rope_scaling, RopeScaling::llama3);
    EXPECT_EQ(found->rope_factor, config.rope_factor);
    EXPECT_EQ(found->rope_original_context, config.rope_original_context);
    EXPECT_EQ(found->rope_low_freq_factor, 1);
    EXPECT_EQ(found->rope_high_freq_factor, 4);
    EXPECT_TRUE(found->rope_divisors.empty());
  }
}

// Four planes none of which lies on the ramp: several contexts give the same angles.
TEST(RopeScaling, WithoutARampAnyContextWillDo) {
  const ModelConfig config = with_divisors(llama3(4, 8, 1024));
  EXPECT_EQ(config.rope_divisors, (std::vector<float>{1, 8}));
  const auto found = divisors_as_llama3(config);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(with_divisors(*found).rope_divisors, config.rope_divisors);
}

TEST(RopeScaling, OtherDivisorsAreNot) {
  ModelConfig config = with_divisors(llama3(128, 8, 8192));
  config.rope_divisors[40] *= 1.00001f;
  EXPECT_FALSE(divisors_as_llama3(config).has_value());
  config.rope_divisors.assign(64, 8.0f);
  config.rope_divisors[63] = 1;  // the long waves kept instead of the short ones
  EXPECT_FALSE(divisors_as_llama3(config).has_value());
  config.rope_divisors.assign(64, 0.5f);
  EXPECT_FALSE(divisors_as_llama3(config).has_value());
}

TEST(RopeScaling, DivisorsOfOneAreNoScaling) {
  ModelConfig config = with_divisors(llama3(128, 8, 8192));
  config.rope_divisors.assign(64, 1.0f);
  const auto found = divisors_as_llama3(config);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->rope_scaling, RopeScaling::none);
}

}  // namespace
}  // namespace tandem
