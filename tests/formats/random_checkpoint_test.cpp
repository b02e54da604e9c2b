// Random checkpoints: every tensor of the shape in the wanted encoding, repeatable, of about unit
// gain.
#include "formats/random_checkpoint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "formats/validate.h"

namespace tandem {
namespace {

ModelConfig small_config() {
  ModelConfig config;
  config.name = "small";
  config.num_layers = 2;
  config.width = 128;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 64;
  config.ffn_width = 256;
  config.vocab_size = 512;
  config.max_context = 64;
  return config;
}

TEST(RandomCheckpoint, HoldsEveryTensorInItsEncoding) {
  ThreadPool pool(2);
  for (const char* name : {"bf16", "f16", "int8", "int4-g32", "int4-g128", "q4_0", "q4_1", "q8_0",
                           "bf16-2:4", "f16-2:4", "int4-g32-2:4", "int4-g128-2:4", "int8-2:4", "fp8-2:4", "q4_k", "q6_k",
                           "fp8", "fp8-weight-only", "nf4", "fp4", "llm-int8"}) {
    const Encoding encoding = encoding_of(name);
    ModelConfig config = small_config();
    if (encoding.is_super()) config.width = 256;
    const Checkpoint made = random_checkpoint(config, encoding, kQ8_0, 7, pool);
    const Checkpoint again = random_checkpoint(config, encoding, kQ8_0, 7, pool);
    for (const ExpectedTensor& want : expected_tensors(made.config)) {
      SCOPED_TRACE(std::string(name) + " " + want.name);
      const Weight& weight = made.weight(want.name);
      ASSERT_EQ(weight.N, want.N);
      ASSERT_EQ(weight.K, want.K);
      std::vector<float> row(static_cast<size_t>(want.K)), same(row.size());
      double squares = 0;
      for (int64_t n = 0; n < want.N; ++n) {
        decode_row(weight, n, row.data());
        decode_row(again.weight(want.name), n, same.data());
        ASSERT_EQ(row, same);
        for (const float value : row) squares += static_cast<double>(value) * value;
      }
      if (want.N == 1) {
        EXPECT_EQ(row, std::vector<float>(row.size(), 1.0f));
        continue;
      }
      // The deviation is 1 / sqrt(K), so the squares of a row add up to about 1.
      EXPECT_NEAR(squares / static_cast<double>(want.N), 1.0, 0.1);
    }
    EXPECT_EQ(made.weight("lm_head.weight").encoding, kQ8_0);
    EXPECT_EQ(made.weight("model.embed_tokens.weight").encoding, kBF16);
    EXPECT_EQ(made.weight("model.layers.1.mlp.down_proj.weight").encoding, encoding);
  }
}

// A maker's rows are the host's: here one that makes them in the host's memory.
TEST(RandomCheckpoint, IsTheSameWhoeverMakesItsRows) {
  ThreadPool pool(2);
  for (const char* name : {"bf16", "f16", "int8", "int4-g32", "int4-g128", "q4_0", "q4_1", "q8_0",
                           "bf16-2:4", "fp8", "int4-g128-2:4", "nf4"}) {
    int sheets = 0;
    const RowMaker maker{
        nullptr, [&](const RandomRows& rows, int64_t N, std::byte* data, std::byte* scales) {
          ++sheets;
          const int64_t step = rows.groups * rows.scale_bytes;
          for (int64_t n = 0; n < N; ++n) {
            make_random_row(rows, n, data + n * rows.row_bytes,
                            scales != nullptr ? scales + n * step : nullptr);
          }
        }};
    const Encoding encoding = encoding_of(name);
    const Checkpoint ours = random_checkpoint(small_config(), encoding, kQ8_0, 7, pool);
    const Checkpoint theirs = random_checkpoint(small_config(), encoding, kQ8_0, 7, pool, &maker);
    EXPECT_GT(sheets, 0);
    for (const NamedTensor& tensor : ours.tensors) {
      const Weight& weight = theirs.weight(tensor.name);
      SCOPED_TRACE(std::string(name) + " " + tensor.name);
      ASSERT_EQ(tensor.weight.total_bytes(), weight.total_bytes());
      ASSERT_EQ(std::memcmp(tensor.weight.data, weight.data, weight.data_bytes()), 0);
      if (weight.scales == nullptr) continue;
      ASSERT_EQ(std::memcmp(tensor.weight.scales, weight.scales, weight.scales_bytes()), 0);
    }
  }
}

TEST(RandomCheckpoint, ReadsTheShapesOfTheRepository) {
  const ModelConfig config = read_model_shape(TANDEM_SOURCE_DIR "/data/models/Llama-3.1-8B.json");
  EXPECT_EQ(config.ffn_width, 14336);
  EXPECT_EQ(config.num_kv_heads, 8);
  EXPECT_FALSE(config.tied_embedding);
}

TEST(RandomCheckpoint, RefusesWhatItCannotMake) {
  ThreadPool pool(1);
  EXPECT_THROW(encoding_of("int3"), Error);
  ModelConfig config = small_config();
  config.width = 96;  // not a multiple of 64
  EXPECT_THROW(random_checkpoint(config, encoding_of("int4-g64"), kBF16, 1, pool), Error);
}

}  // namespace
}  // namespace tandem
