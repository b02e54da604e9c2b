// The layer in float against the model's own step: biases, head norms, windows, tails of a batch.
#include "compress/layer_forward.h"

#include <gtest/gtest.h>

#include <cmath>

#include "formats/random_checkpoint.h"
#include "kernels/table.h"
#include "model/model.h"

namespace tandem {
namespace {

constexpr int64_t kLength = 70, kSequences = 3;

ModelConfig small_config() {
  ModelConfig config;
  config.family = "qwen3";
  config.num_layers = 2;
  config.width = 96;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 32;
  config.ffn_width = 160;
  config.vocab_size = 50;
  config.max_context = 128;
  return config;
}

std::vector<int32_t> token_ids(int64_t V) {
  std::vector<int32_t> ids(kLength * kSequences);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>((i * 7 + i / 11) % V);
  return ids;
}

// Logits of the last token of a sequence, [V].
std::vector<float> model_logits(const Checkpoint& checkpoint, const int32_t* ids, ThreadPool& pool) {
  const Model model(checkpoint, pool, best_isa());
  const KvLayout layout = model.kv_layout(KvType::f32);
  const int64_t num_pages = (kLength + kPageTokens - 1) / kPageTokens;
  Buffer pages(static_cast<size_t>(num_pages * layout.page_bytes()));
  std::vector<int32_t> table, positions;
  for (int64_t p = 0; p < num_pages; ++p) table.push_back(static_cast<int32_t>(p));
  for (int64_t t = 0; t < kLength; ++t) positions.push_back(static_cast<int32_t>(t));
  Batch batch;
  batch.T = kLength;
  batch.tokens = ids;
  batch.positions = positions.data();
  batch.sequences.push_back(
      {.num_tokens = kLength, .context = kLength, .pages = table.data(), .length = kLength});
  batch.logit_rows = {static_cast<int32_t>(kLength - 1)};
  const auto workspace = model.make_workspace(kLength, 1, num_pages);
  model.forward(batch, {layout, pages.data()}, *workspace);
  const float* logits = model.logits(*workspace, 1);
  return {logits, logits + checkpoint.config.vocab_size};
}

// The same through the pieces, for all sequences at once.
std::vector<std::vector<float>> forward_logits(const Checkpoint& checkpoint,
                                               const std::vector<int32_t>& ids, ThreadPool& pool) {
  const ModelConfig& c = checkpoint.config;
  const int64_t T = static_cast<int64_t>(ids.size()), C = c.width, HD = c.num_heads * c.head_dim;
  LayerForward forward(c, kLength, kSequences, pool);
  std::vector<float> x(static_cast<size_t>(T * C)), h(x.size());
  std::vector<float> attended(static_cast<size_t>(T * HD)), act(static_cast<size_t>(T * c.ffn_width));
  for (int64_t t = 0; t < T; ++t) {
    decode_row(checkpoint.weight("model.embed_tokens.weight"), ids[static_cast<size_t>(t)],
               x.data() + t * C);
  }
  for (int64_t l = 0; l < c.num_layers; ++l) {
    const LayerWeights weights = load_layer(checkpoint, l, pool);
    forward.norm(x.data(), T, weights.attn_norm, h.data());
    forward.attention(weights, l, h.data(), T, attended.data());
    forward.add_linear(weights[Linear::o], attended.data(), T, x.data());
    forward.norm(x.data(), T, weights.ffn_norm, h.data());
    forward.gate_up(weights, h.data(), T, act.data());
    forward.add_linear(weights[Linear::down], act.data(), T, x.data());
  }
  std::vector<float> norm(static_cast<size_t>(C));
  decode_row(checkpoint.weight("model.norm.weight"), 0, norm.data());
  forward.norm(x.data(), T, norm, h.data());
  const Weight& head = checkpoint.weight("lm_head.weight");
  std::vector<std::vector<float>> logits(kSequences);
  std::vector<float> row(static_cast<size_t>(C));
  for (int64_t s = 0; s < kSequences; ++s) {
    const float* last = h.data() + ((s + 1) * kLength - 1) * C;
    for (int64_t v = 0; v < c.vocab_size; ++v) {
      decode_row(head, v, row.data());
      double sum = 0;
      for (int64_t k = 0; k < C; ++k) sum += static_cast<double>(row[static_cast<size_t>(k)]) * last[k];
      logits[static_cast<size_t>(s)].push_back(static_cast<float>(sum));
    }
  }
  return logits;
}

void expect_same(const ModelConfig& config) {
  ThreadPool pool(2, /*pin=*/false);
  const Checkpoint checkpoint = random_checkpoint(config, kBF16, kBF16, 7, pool);
  const std::vector<int32_t> ids = token_ids(config.vocab_size);
  const auto found = forward_logits(checkpoint, ids, pool);
  for (int64_t s = 0; s < kSequences; ++s) {
    const auto expected = model_logits(checkpoint, ids.data() + s * kLength, pool);
    for (size_t v = 0; v < expected.size(); ++v) {
      ASSERT_NEAR(found[static_cast<size_t>(s)][v], expected[v], 1e-4 * (1 + std::fabs(expected[v])));
    }
  }
}

TEST(LayerForward, PlainLayer) { expect_same(small_config()); }

TEST(LayerForward, BiasesAndHeadNorms) {
  ModelConfig config = small_config();
  config.qkv_bias = config.o_bias = config.mlp_bias = config.qk_norm = true;
  expect_same(config);
}

TEST(LayerForward, WindowsOfSomeLayers) {
  ModelConfig config = small_config();
  config.sliding_window = 20;
  config.full_layers = {false, true};
  expect_same(config);
}

}  // namespace
}  // namespace tandem
