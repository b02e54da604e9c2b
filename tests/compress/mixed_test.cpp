// Mixed precision: sizes by the file's arithmetic, allocations as overrides of a step.
#include "compress/mixed.h"

#include <gtest/gtest.h>

#include <ctime>

#include "kernels/table.h"

namespace tandem {
namespace {

ModelConfig small_config() {
  ModelConfig config;
  config.num_layers = 2;
  config.width = 64;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 32;
  config.ffn_width = 128;
  return config;
}

constexpr IntegerGrid kInt4{4, 32, false, ScaleType::bf16}, kInt8{8, 0, true, ScaleType::bf16};

TEST(Mixed, BytesAreTheFiles) {
  ThreadPool pool(1, false);
  const auto sizes = set_sizes(small_config(), {kInt4, kInt8}, BudgetUnit::bytes, "ref", pool);
  ASSERT_EQ(sizes.size(), 8u);
  // q|k|v: 64 + 32 + 32 rows of 64; two groups a row, each a bf16 scale and a zero of 4 bits.
  EXPECT_EQ(sizes[0][0], 128 * (32 + 2 * 2.5));
  EXPECT_EQ(sizes[0][1], 128 * (64 + 2));
  // down: 64 rows of 128
  EXPECT_EQ(sizes[7][0], 64 * (64 + 4 * 2.5));
  EXPECT_EQ(sizes[3], sizes[7]);
  EXPECT_EQ(num_layer_weights(small_config()), 2 * (128 * 64 + 64 * 64 + 256 * 64 + 64 * 128));
}

TEST(Mixed, NanosecondsAreMeasuredForEveryGrid) {
  ThreadPool pool(1, false);
  const auto sizes =
      set_sizes(small_config(), {kInt4, kInt8}, BudgetUnit::nanoseconds, best_isa(), pool);
  for (const auto& set : sizes) {
    for (const double nanoseconds : set)
      EXPECT_TRUE(nanoseconds > 10 && nanoseconds < 1e8) << nanoseconds;
  }
}

TEST(Mixed, MicrojoulesAreThoseOfOneProduct) {
  ThreadPool pool(1, false);
  int windows = 0;
  // A machine that draws 5 W while this process runs: others on it do not count.
  const auto joules_of = [&](const std::function<void()>& work) {
    ++windows;
    const std::clock_t begin = std::clock();
    work();
    return 5 * static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  };
  const Encoding encoding = int4_group(32, ScaleType::bf16);
  const double microjoules = linear_microjoules(encoding, 256, 256, best_isa(), pool, joules_of);
  const double nanoseconds = linear_nanoseconds(encoding, 256, 256, best_isa(), pool);
  EXPECT_EQ(windows, 1);
  EXPECT_GT(microjoules, 5e-3 * nanoseconds / 10);
  EXPECT_LT(microjoules, 5e-3 * nanoseconds * 10);
}

TEST(Mixed, AnAllocationBecomesOverridesThatTheUsersOwnOutrank) {
  StepSpec step;
  step.method = "rtn";
  StepOverride skip;
  skip.glob = "model.layers.0.mlp.down_proj";
  skip.skip = true;
  step.overrides.push_back(skip);
  Allocation allocation;
  allocation.forms = {0, 1, 1, 0, 1, 1, 1, 1};
  const StepSpec mixed = with_allocation(step, {kInt4, kInt8}, allocation);
  const auto bits = [&](int64_t layer, Linear linear) {
    return std::get<int64_t>(options_for(mixed, layer, linear)->values.at("bits").value);
  };
  EXPECT_EQ(bits(0, Linear::k), 4);
  EXPECT_EQ(bits(0, Linear::o), 8);
  EXPECT_EQ(bits(1, Linear::q), 8);
  EXPECT_FALSE(options_for(mixed, 0, Linear::down).has_value());
  EXPECT_EQ(std::get<int64_t>(options_for(mixed, 0, Linear::v)->values.at("group").value), 32);
  EXPECT_TRUE(std::get<bool>(options_for(mixed, 1, Linear::up)->values.at("symmetric").value));
}

TEST(Mixed, TheCurveTradesSizeForCost) {
  const auto curve = mixed_curve({{4, 8}, {4, 8}}, {{1, 0.1}, {3, 0.1}});
  ASSERT_EQ(curve.size(), 3u);
  EXPECT_EQ(curve[1].forms, (std::vector<int>{0, 1}));  // the dearer one is spent on first
}

}  // namespace
}  // namespace tandem
