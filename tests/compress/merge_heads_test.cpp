// Which models give up KV heads, and that what comes out is a model again.
#include "compress/merge_heads.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error_message.h"
#include "formats/random_checkpoint.h"
#include "formats/validate.h"

namespace tandem {
namespace {

// Random weights, which every head has its own of.
Checkpoint model(bool has_biases = false, bool has_norms = false) {
  ModelConfig config;
  config.num_layers = 2;
  config.width = 64;
  config.num_heads = 8;
  config.num_kv_heads = 4;
  config.head_dim = 16;
  config.ffn_width = 96;
  config.vocab_size = 32;
  config.max_context = 64;
  config.tied_embedding = true;
  config.qkv_bias = has_biases;
  config.qk_norm = has_norms;
  ThreadPool pool(2, /*pin=*/false);
  return random_checkpoint(config, kBF16, kBF16, 1, pool);
}

MergedHeads merge(const Checkpoint& source, int64_t heads, bool aligned) {
  ThreadPool pool(2, /*pin=*/false);
  return merge_kv_heads(source, {heads, aligned}, nullptr, pool);
}

// Every tensor has the shape that the new config wants, biases too; what is no head's is the source's.
TEST(MergeHeads, MakesAModelOfFewerHeads) {
  for (const bool has_biases : {false, true}) {
    const Checkpoint source = model(has_biases);
    for (const bool aligned : {false, true}) {
      const Checkpoint merged = merge(source, 2, aligned).checkpoint;
      EXPECT_EQ(merged.config.num_kv_heads, 2);
      for (const ExpectedTensor& want : expected_tensors(merged.config)) {
        const Weight& w = merged.weight(want.name);
        EXPECT_EQ(w.N, want.N) << want.name;
        EXPECT_EQ(w.K, want.K) << want.name;
        const bool is_attention = want.name.find("_proj") != std::string::npos &&
                                  want.name.find("self_attn") != std::string::npos;
        EXPECT_EQ(w.data == source.weight(want.name).data, !is_attention) << want.name;
      }
    }
  }
}

TEST(MergeHeads, KeepsMorePowerWhenAligned) {
  const Checkpoint source = model();
  const MergedHeads mean = merge(source, 2, false), aligned = merge(source, 2, true);
  for (size_t l = 0; l < mean.layers.size(); ++l) {
    EXPECT_GT(aligned.layers[l].kept_power, mean.layers[l].kept_power);
    std::vector<int64_t> order = aligned.layers[l].order;
    std::ranges::sort(order);
    for (size_t j = 0; j < order.size(); ++j) EXPECT_EQ(order[j], static_cast<int64_t>(j));
  }
}

TEST(MergeHeads, Refuses) {
  const Checkpoint source = model();
  for (const int64_t heads : {0, 3, 4, 8}) {
    EXPECT_EQ(message_of(ErrorKind::usage, [&] { merge(source, heads, true); }),
              fmt::format("{} KV heads, expected a divisor of the model's 4 that is below it", heads));
  }
  const Checkpoint normed = model(false, /*has_norms=*/true);
  EXPECT_NE(message_of(ErrorKind::usage, [&] { merge(normed, 2, true); })
                .find("q and k have norms, which do not commute with turning a head"),
            std::string::npos);
  EXPECT_EQ(merge(normed, 2, false).checkpoint.config.num_kv_heads, 2);
}

}  // namespace
}  // namespace tandem
