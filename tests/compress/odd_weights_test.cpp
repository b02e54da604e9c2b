// Weights that leave a scale nothing to go by, in every recipe: what comes out is defined.
#include <gtest/gtest.h>

#include <cmath>

#include "compress/compress.h"
#include "compress/manifest.h"
#include "formats/temporary_folder.h"
#include "formats/validate.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

// A model 64 wide in bf16, every element of every matrix the same.
struct ConstantModel {
  ModelConfig config;
  TokenizerSpec tokenizer;

  ConstantModel() {
    config.name = "constant";
    config.family = "llama";
    config.num_layers = 1;
    config.width = 64;
    config.num_heads = 2;
    config.num_kv_heads = 1;
    config.head_dim = 32;
    config.ffn_width = 128;
    config.vocab_size = 259;
    config.max_context = 64;
    config.tied_embedding = true;
    config.rms_eps = 1e-5;
    config.rope_theta = 10000;
  }

  Checkpoint write(const fs::path& dir, uint16_t bits) const {
    const Checkpoint donor =
        load_checkpoint(fs::path(TANDEM_TEST_DIR) / "golden" / "families" / "llama");
    std::vector<TensorSource> tensors;
    for (const auto& [name, N, K] : expected_tensors(config)) {
      const std::vector<uint16_t> values(static_cast<size_t>(N * K), N == 1 ? 0x3f80 : bits);
      tensors.push_back({name, "BF16", N == 1 ? std::vector{K} : std::vector{N, K},
                         values.size() * 2, [values](const ByteSink& sink) {
                           sink(std::as_bytes(std::span(values)));
                         }});
    }
    write_hf_folder(dir, config, donor.tokenizer, tensors, "", "", donor.path);
    return load_checkpoint(dir);
  }
};

struct Case {
  const char* name;
  uint16_t bits;  // bf16
  double value, tolerance;  // of what is decoded
};

// A denormal's scale may be one itself or 0: the number may become 0, and nothing else.
const Case kCases[] = {
    {"zero", 0x0000, 0, 0},
    {"equal", 0x3f00, 0.5, 0.5 / 14},  // half a step of 4 bits
    {"negative", 0xbf00, -0.5, 0.5 / 14},
    {"denormal", 0x0001, 0, 1e-39},
    {"smallest", 0x0080, 0, 2e-38},
};

class OddWeights : public testing::TestWithParam<Case> {};

TEST_P(OddWeights, AreDefinedInEveryRecipe) {
  const TemporaryFolder dir;
  ThreadPool pool(1, /*pin=*/false);
  const Checkpoint source = ConstantModel().write(dir.path() / "source", GetParam().bits);
  const auto check = [&](const Recipe& recipe, const fs::path& out) {
    const CompressResult result = recipe.container == Container::gguf
                                      ? compress_to_gguf(source, recipe, out, pool, {})
                                      : compress(source, recipe, out, pool, {});
    for (const MatrixError& error : result.errors) {
      EXPECT_LE(error.relative_error, 1) << recipe.name << " " << error.name;
    }
    const Checkpoint made = load_checkpoint(out);
    std::vector<float> row;
    for (const auto& [name, weight] : made.tensors) {
      if (weight.N == 1) continue;
      row.resize(static_cast<size_t>(weight.K));
      decode_row(weight, weight.N - 1, row.data());
      for (const float value : row) {
        ASSERT_NEAR(value, GetParam().value, GetParam().tolerance) << recipe.name << " " << name;
      }
    }
    EXPECT_TRUE(verify_compressed(out).empty()) << recipe.name;
  };
  for (const char* name : {"bf16", "f32", "int8", "llm-int8", "int4", "fp8", "nf4"}) {
    check(recipe_from_name(name), dir.path() / name);
  }
  for (const char* name : {"f16", "q8_0", "q6_k", "q4_k", "q4_1", "q4_0"}) {
    check(recipe_from_name(name, 0, Container::gguf), dir.path() / (name + std::string(".gguf")));
  }
}
INSTANTIATE_TEST_SUITE_P(Values, OddWeights, testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace tandem
