// Recipes that prune, as folders whose matrices are 2:4: the same numbers as the dense folder of
// the same steps, two of each four kept, run as 2:4 by every instruction set.
#include "compress/sparse_files.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "base/error_message.h"
#include "compress/compress_steps.h"
#include "formats/random_checkpoint.h"
#include "formats/temporary_folder.h"
#include "model/model.h"
#include "runtime/engine.h"

namespace tandem {
namespace {

const std::string kPrune = "[[step]]\nmethod = \"sparsegpt\"\n";
const std::string kInt4 = "[[step]]\nmethod = \"gptq\"\ngroup = 32\n";
const std::string kInt8 = "[[step]]\nmethod = \"gptq\"\nbits = 8\ngroup = 0\n";
const std::string kFp8 = "[[step]]\nmethod = \"fp8\"\n";
const std::string kDynamic = "activations = \"dynamic\"\n";

class SparseFiles : public testing::Test {
 protected:
  SparseFiles() {
    ModelConfig config;
    config.family = "llama";
    config.name = "toy";
    config.num_layers = 2;
    config.width = 64;
    config.num_heads = 4;
    config.num_kv_heads = 2;
    config.head_dim = 16;
    config.ffn_width = 96;
    config.vocab_size = 40;
    config.max_context = 128;
    source_ = random_checkpoint(config, kBF16, kBF16, 3, pool_);
    source_.path = "toy";
    source_.tokenizer.pre_tokenizer = "smollm";
    for (int i = 0; i < 40; ++i) {
      source_.tokenizer.tokens.push_back(std::string(1, static_cast<char>('A' + i)));
    }
    source_.tokenizer.types.assign(40, TokenType::normal);
    source_.tokenizer.eos_id = 0;
    source_.files.push_back(std::make_shared<MappedFile>(folder_.write("weights", "any")));
    rows_.length = 32;
    for (int i = 0; i < 8 * 32; ++i) rows_.ids.push_back((i * 7 + i / 5) % 40);
    rows_.source = "rows";
    rows_.hash = "1";
  }

  Checkpoint run(const std::string& recipe, const std::string& format) {
    const std::filesystem::path out = folder_.path() / fmt::format("{}", num_runs_++);
    compress_by_steps(source_,
                      parse_step_recipe("format = \"" + format + "\"\n" + recipe, "r.toml"), &rows_,
                      out, pool_, {});
    return load_checkpoint(out);
  }
  std::string refusal(const std::string& recipe) {
    return message_of(ErrorKind::usage, [&] { run(recipe, "sparse-24-bitmask"); });
  }

  std::vector<float> logits(const Checkpoint& checkpoint, std::string_view isa,
                            bool require_sparse) {
    const Model model(checkpoint, pool_, isa, require_sparse);
    const std::vector<int32_t> tokens = {0, 11, 22, 33, 1, 39};
    Scorer scorer(model, KvType::f32, static_cast<int64_t>(tokens.size()));
    std::vector<float> out;
    scorer.score(tokens, 0,
                 [&](int64_t, const float* row) { out.insert(out.end(), row, row + 40); });
    return out;
  }

  ThreadPool pool_{2, /*pin=*/false};
  TemporaryFolder folder_;
  Checkpoint source_;
  CalibrationRows rows_;
  int num_runs_ = 0;
};

struct Case {
  std::string recipe;
  Encoding encoding;
};
const Case kCases[] = {{kPrune, kBF16_24},
                       {kPrune + kInt4, int4_group_24(32, ScaleType::bf16)},
                       {kDynamic + kPrune + kInt8, int8_channel_24(ScaleType::bf16)},
                       {kDynamic + kPrune + kFp8, fp8_channel_24(ScaleType::bf16)}};

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  float largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

TEST_F(SparseFiles, HoldTheNumbersOfTheDenseFolder) {
  for (const auto& [recipe, encoding] : kCases) {
    SCOPED_TRACE(recipe);
    const Checkpoint sparse = run(recipe, "sparse-24-bitmask");
    const Checkpoint dense = run(recipe, "compressed-tensors");
    int matrices = 0;
    for (const NamedTensor& tensor : sparse.tensors) {
      const Weight &w = sparse.weight(tensor.name), &wanted = dense.weight(tensor.name);
      const bool is_matrix = tensor.name.ends_with("_proj.weight");
      matrices += is_matrix;
      EXPECT_EQ(w.encoding, is_matrix ? encoding : kBF16) << tensor.name;
      std::vector<float> a(static_cast<size_t>(w.K)), b(a.size());
      for (int64_t n = 0; n < w.N; ++n) {
        decode_row(w, n, a.data());
        decode_row(wanted, n, b.data());
        ASSERT_EQ(a, b) << tensor.name << " row " << n;
      }
      if (!is_matrix) continue;
      for (size_t i = 0; i < w.mask_bytes(); ++i) {
        const auto byte = static_cast<unsigned>(w.mask[i]);
        ASSERT_EQ(std::popcount(byte & 15), 2) << tensor.name << " byte " << i;
        ASSERT_EQ(std::popcount(byte >> 4), 2) << tensor.name << " byte " << i;
      }
    }
    EXPECT_EQ(matrices, 14);
    EXPECT_LT(largest_difference(logits(sparse, "ref", false), logits(dense, "ref", false)), 1e-5f);
  }
}

TEST_F(SparseFiles, RunAs24) {
  for (const auto& [recipe, encoding] : kCases) {
    SCOPED_TRACE(encoding.name());
    const Checkpoint sparse = run(recipe, "sparse-24-bitmask");
    const std::vector<float> truth = logits(sparse, "ref", false);
    const auto [low, high] = std::minmax_element(truth.begin(), truth.end());
    for (const std::string_view isa : runnable_isas()) {
      // Only ref and CUDA have kernels of FP8 2:4.
      if (isa == "ref" || encoding.has_e4m3_codes()) continue;
      EXPECT_LT(largest_difference(logits(sparse, isa, /*require_sparse=*/true), truth),
                0.05f * (*high - *low))
          << isa;
    }
  }
}

TEST_F(SparseFiles, MatricesThatNoStepTouchesStayDense) {
  const Checkpoint some = run("[[step]]\nmethod = \"sparsegpt\"\nonly = \"*.mlp.*\"\n" + kInt4 +
                                  "only = \"*.mlp.up_proj\"\n",
                              "sparse-24-bitmask");
  EXPECT_EQ(some.weight("model.layers.0.self_attn.q_proj.weight").encoding, kBF16);
  EXPECT_EQ(some.weight("model.layers.0.mlp.down_proj.weight").encoding, kBF16_24);
  EXPECT_EQ(some.weight("model.layers.0.mlp.up_proj.weight").encoding,
            int4_group_24(32, ScaleType::bf16));
}

TEST_F(SparseFiles, WhatHasNo24FormIsRefused) {
  const std::string q = "model.layers.0.self_attn.q_proj: ";
  EXPECT_EQ(refusal(kInt4), q + "is quantized but not pruned, which a 2:4 folder cannot hold");
  const std::string holds = q +
                            "2:4 holds 4 bits in groups of a multiple of 32, or 8 bits a row with "
                            "activations \"dynamic\", symmetric, columns in order; found ";
  EXPECT_EQ(refusal(kPrune + kInt8), holds +
                                         "8 bits, group 0, symmetric, columns in order, "
                                         "activations \"none\"");
  EXPECT_EQ(refusal(kPrune + kInt4 + "symmetric = false\n"),
            holds + "4 bits, group 32, with zero points, columns in order, activations \"none\"");
  EXPECT_EQ(refusal(kPrune + kInt4 + "order = \"act\"\n"),
            holds + "4 bits, group 32, symmetric, columns in act-order, activations \"none\"");
  EXPECT_EQ(refusal(kDynamic + kPrune + kInt4),
            holds + "4 bits, group 32, symmetric, columns in order, activations in 8 bits");
  EXPECT_EQ(refusal(kPrune + kFp8),
            q + "fp8 per channel with activations \"none\" has no 2:4 form, "
                "expected fp8 per channel with activations \"dynamic\"");
  EXPECT_NE(
      refusal("activations = \"static\"\n" + kPrune + kInt8).find("activations static in format"),
      std::string::npos);
}

}  // namespace
}  // namespace tandem
