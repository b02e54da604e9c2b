// The twin computes what the model computes, and lies on none of its grids.
#include "compress/off_grid.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/compress.h"
#include "formats/temporary_folder.h"
#include "model/model.h"
#include "runtime/engine.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

constexpr ModelConfig small_config() {
  ModelConfig config;
  config.num_layers = 2;
  config.width = 12;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 3;
  config.ffn_width = 20;
  return config;
}

TEST(OffGrid, WhatReadsAChannelHasTheInverseOfWhatWritesIt) {
  const ModelConfig config = small_config();
  const auto of = [&](const char* name) { return off_grid_factors(config, name, 7); };
  const auto expect_inverse = [](const std::vector<double>& a, const std::vector<double>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_NEAR(a[i] * b[i], 1, 1e-15) << i;
      EXPECT_GE(a[i], 0.8 - 1e-12);
      EXPECT_LE(a[i], 1.25 + 1e-12);
    }
  };
  const auto attn = of("model.layers.1.input_layernorm.weight");
  const auto ffn = of("model.layers.1.post_attention_layernorm.weight");
  const auto v = of("model.layers.1.self_attn.v_proj.weight");
  const auto up = of("model.layers.1.mlp.up_proj.weight");
  for (const char* part : {"q", "k", "v"}) {
    expect_inverse(attn.columns,
                   of(("model.layers.1.self_attn." + std::string(part) + "_proj.weight").c_str())
                       .columns);
  }
  expect_inverse(ffn.columns, of("model.layers.1.mlp.gate_proj.weight").columns);
  expect_inverse(ffn.columns, up.columns);
  expect_inverse(up.rows, of("model.layers.1.mlp.down_proj.weight").columns);
  EXPECT_EQ(of("model.layers.1.self_attn.v_proj.bias").columns, v.rows);
  // Two heads read a group's channels.
  const auto o = of("model.layers.1.self_attn.o_proj.weight").columns;
  ASSERT_EQ(o.size(), 12u);
  for (const auto& [column, row] : {std::pair{0, 0}, {3, 0}, {5, 2}, {6, 3}, {11, 5}}) {
    EXPECT_NEAR(o[static_cast<size_t>(column)] * v.rows[static_cast<size_t>(row)], 1, 1e-15);
  }
  for (const char* other : {"model.norm.weight", "model.embed_tokens.weight", "lm_head.weight",
                            "model.layers.1.self_attn.q_norm.weight",
                            "model.layers.1.self_attn.q_proj.bias"}) {
    EXPECT_TRUE(of(other).is_identity()) << other;
  }
}

TEST(OffGrid, PlacesLayersAndSeedsDiffer) {
  const ModelConfig config = small_config();
  const auto columns = [&](const char* name, uint64_t seed) {
    return off_grid_factors(config, name, seed).columns;
  };
  const char* norm = "model.layers.0.input_layernorm.weight";
  EXPECT_EQ(columns(norm, 1), columns(norm, 1));
  EXPECT_NE(columns(norm, 1), columns(norm, 2));
  EXPECT_NE(columns(norm, 1), columns("model.layers.1.input_layernorm.weight", 1));
  EXPECT_NE(columns(norm, 1), columns("model.layers.0.post_attention_layernorm.weight", 1));
}

std::vector<float> logits_of(const Checkpoint& checkpoint, ThreadPool& pool) {
  const Model model(checkpoint, pool, "ref");
  const std::vector<int32_t> tokens = {1, 2, 3, 0, 2, 1, 1, 3};
  Scorer scorer(model, KvType::f32, static_cast<int64_t>(tokens.size()));
  std::vector<float> all;
  scorer.score(tokens, 0, [&](int64_t, const float* logits) {
    all.insert(all.end(), logits, logits + model.config().vocab_size);
  });
  return all;
}

class Twin : public testing::TestWithParam<const char*> {};

TEST_P(Twin, HasTheLogitsOfTheModelAndOtherWeights) {
  const Checkpoint source =
      load_checkpoint(fs::path(TANDEM_TEST_DIR) / "golden" / "families" / GetParam());
  const TemporaryFolder dir;
  ThreadPool pool(1, /*pin=*/false);
  compress(source, recipe_from_name("f32"), dir.path() / "f32", pool, {});
  const CompressResult result =
      compress(source, recipe_from_name("off-grid-f32"), dir.path() / "twin", pool, {});
  const Checkpoint plain = load_checkpoint(dir.path() / "f32");
  const Checkpoint twin = load_checkpoint(dir.path() / "twin");

  const std::vector<float> expected = logits_of(plain, pool), actual = logits_of(twin, pool);
  double difference = 0, size = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(actual[i]) - static_cast<double>(expected[i]), 2);
    size += std::pow(static_cast<double>(expected[i]), 2);
  }
  EXPECT_LT(difference / size, 1e-10);
  EXPECT_GT(size, 0);

  // The errors see through the factors, the weights themselves do not match.
  for (const MatrixError& error : result.errors) EXPECT_LT(error.relative_error, 1e-5) << error.name;
  for (const char* part : {"self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj",
                           "mlp.up_proj", "mlp.down_proj"}) {
    const std::string name = "model.layers.0." + std::string(part) + ".weight";
    std::vector<float> a(static_cast<size_t>(plain.weight(name).K)), b(a.size());
    decode_row(plain.weight(name), 0, a.data());
    decode_row(twin.weight(name), 0, b.data());
    EXPECT_GT(std::abs(b[0] / a[0] / (b[1] / a[1]) - 1), 1e-4) << name;
  }
}
INSTANTIATE_TEST_SUITE_P(Families, Twin,
                         testing::Values("llama", "llama_bias", "llama_tied", "mistral", "phi3",
                                         "qwen2", "qwen3"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace tandem
