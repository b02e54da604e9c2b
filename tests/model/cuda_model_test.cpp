// Parts of a decoder that few models have, on the GPU against ref: whole models, random and tiny.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "formats/random_checkpoint.h"
#include "model/model.h"
#include "runtime/engine.h"

namespace tandem {
namespace {

constexpr int64_t kTokens = 200;  // two segments of the scorer

ModelConfig tiny() {
  ModelConfig config;
  config.name = "tiny";
  config.num_layers = 2;
  config.width = config.ffn_width = 256;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 64;
  config.vocab_size = 512;
  config.max_context = 512;
  return config;
}

std::vector<float> logits_of(const ModelConfig& config, const char* isa) {
  ThreadPool pool(2);
  const Checkpoint checkpoint = random_checkpoint(config, kF16, kF16, 1, pool);
  const Model model(checkpoint, pool, isa);
  std::vector<int32_t> tokens;
  for (int32_t t = 0; t < kTokens; ++t)
    tokens.push_back(t * 37 % static_cast<int32_t>(config.vocab_size));
  std::vector<float> all;
  Scorer scorer(model, KvType::bf16, kTokens);
  scorer.score(tokens, 0, [&](int64_t, const float* logits) {
    all.insert(all.end(), logits, logits + config.vocab_size);
  });
  return all;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::fabs(double{a[i]} - b[i]));
  return worst;
}

// Logits have a deviation of about 1. Activations are f16 on the GPU and f32 in ref, which makes a
// difference of some 1e-3; what `config` has beyond tiny() must make a larger one.
void compare(const ModelConfig& config) {
  try {
    open_device("cuda");
  } catch (const Error& error) {
    GTEST_SKIP() << error.what();
  }
  const std::vector<float> expected = logits_of(config, "ref");
  EXPECT_LT(largest_difference(logits_of(config, "cuda"), expected), 0.05);
  EXPECT_GT(largest_difference(logits_of(tiny(), "ref"), expected), 0.5);
}

TEST(CudaModel, BiasesOfEveryLinear) {
  ModelConfig config = tiny();
  config.qkv_bias = config.o_bias = config.mlp_bias = true;
  compare(config);
}

TEST(CudaModel, DynamicRope) {
  ModelConfig config = tiny();
  config.rope_scaling = RopeScaling::dynamic;
  config.rope_factor = 4;
  config.rope_original_context = 64;
  compare(config);
}

}  // namespace
}  // namespace tandem
