// Errors by hand, and what is no error.
#include "compress/weight_error.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tandem {
namespace {

// Tensors in memory, in f32.
struct Tensors {
  std::vector<std::unique_ptr<std::vector<float>>> data;
  Checkpoint checkpoint;

  Tensors() {
    checkpoint.config.num_heads = checkpoint.config.num_kv_heads = 1;
    checkpoint.config.head_dim = 2;
  }
  void add(const std::string& name, int64_t N, std::vector<float> values) {
    data.push_back(std::make_unique<std::vector<float>>(std::move(values)));
    const auto K = std::ssize(*data.back()) / N;
    const auto* bytes = reinterpret_cast<const std::byte*>(data.back()->data());
    checkpoint.tensors.push_back({name, {.encoding = kF32, .N = N, .K = K, .data = bytes}});
    checkpoint.index_tensors();
  }
};

const std::string kLayer = "model.layers.0.";

std::vector<MatrixError> errors_of(const Tensors& a, const Tensors& b) {
  ThreadPool pool(1, /*pin=*/false);
  return matrix_errors(a.checkpoint, b.checkpoint, pool);
}

TEST(WeightError, IsTheFrobeniusNormOfTheDifference) {
  Tensors a, b;
  a.add("lm_head.weight", 2, {3, 0, 0, 4});
  b.add("lm_head.weight", 2, {3, 1, 0, 4});
  a.add("zeros", 2, {0, 0, 0, 0});
  b.add("zeros", 2, {0, 0, 0, 0});
  a.add("other shape", 2, {1, 1, 1, 1});
  b.add("other shape", 2, {1, 1});
  a.add("a norm", 1, {1, 2});
  b.add("a norm", 1, {2, 1});
  const auto errors = errors_of(a, b);
  ASSERT_EQ(errors.size(), 2u);
  EXPECT_DOUBLE_EQ(errors[0].relative_error, 0.2);
  EXPECT_EQ(errors[1].relative_error, 0);
}

TEST(WeightError, SeesThroughWhatMovesIntoTheNorm) {
  Tensors a, b;
  a.add(kLayer + "input_layernorm.weight", 1, {1, 2});
  b.add(kLayer + "input_layernorm.weight", 1, {2, 1});
  a.add(kLayer + "self_attn.q_proj.weight", 2, {1, 2, 3, 4});
  b.add(kLayer + "self_attn.q_proj.weight", 2, {0.5f, 4, 1.5f, 8});
  EXPECT_EQ(errors_of(a, b)[0].relative_error, 0);
}

TEST(WeightError, SeesThroughScaledRowsButNotThroughRounding) {
  Tensors a, b, rounded;
  for (Tensors* t : {&a, &b, &rounded}) {
    const float x = t == &b ? 2.0f : 1.0f, y = t == &b ? 0.5f : 1.0f;
    const float off = t == &rounded ? 0.02f : 0.0f;
    t->add(kLayer + "mlp.up_proj.weight", 2, {x * (1 + off), x * 2, y * (3 - off), y * 4});
    t->add(kLayer + "mlp.down_proj.weight", 2, {5 / x, 6 / y, 7 / x, 8 / y});
    t->add(kLayer + "self_attn.v_proj.weight", 2, {x, x * 2, y * 3, y * 4});
    t->add(kLayer + "self_attn.o_proj.weight", 2, {5 / x, 6 / y, 7 / x, 8 / y});
  }
  for (const MatrixError& error : errors_of(a, b)) EXPECT_EQ(error.relative_error, 0) << error.name;
  const auto errors = errors_of(a, rounded);
  EXPECT_NEAR(errors[0].relative_error, std::sqrt(2 * 0.0004 / 30), 1e-6);
  EXPECT_EQ(errors[1].relative_error, 0);
}

TEST(WeightError, TheWorstComeFirst) {
  const auto worst = worst_errors({{"a", 0.1}, {"b", 0.3}, {"c", 0.2}}, 2);
  ASSERT_EQ(worst.size(), 2u);
  EXPECT_EQ(worst[0].name, "b");
  EXPECT_EQ(worst[1].name, "c");
  EXPECT_EQ(worst_errors({{"a", 0.1}}, 5).size(), 1u);
}

}  // namespace
}  // namespace tandem
