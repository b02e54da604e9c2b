// What rounding one set of linears costs, against the divergence that the engine's own logits have
// when that set alone is rounded.
#include "compress/sensitivity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>

#include "compress/layer_weights.h"
#include "formats/random_checkpoint.h"
#include "model/model.h"
#include "runtime/engine.h"

namespace tandem {
namespace {

constexpr int64_t kLength = 32, kRows = 2;

class SensitivityTest : public testing::Test {
 protected:
  SensitivityTest() {
    ModelConfig config;
    config.family = "llama";
    config.num_layers = 2;
    config.width = 64;
    config.num_heads = 4;
    config.num_kv_heads = 2;
    config.head_dim = 16;
    config.ffn_width = 96;
    config.vocab_size = 40;
    config.max_context = 64;
    source_ = random_checkpoint(config, kBF16, kBF16, 5, pool_);
    rows_.length = kLength;
    for (int i = 0; i < kRows * kLength; ++i) rows_.ids.push_back((i * 7 + i / 5) % 40);
  }

  // The model with one set of one layer rounded; its numbers go into `memory`.
  Checkpoint rounded(int64_t layer, LinearSet set, const IntegerGrid& grid,
                     std::deque<std::vector<float>>& memory) {
    Checkpoint out = source_;
    for (const Linear linear : linears_of(set)) {
      const auto tensor = std::ranges::find(out.tensors, module_name(layer, linear) + ".weight",
                                            &NamedTensor::name);
      Weight& weight = tensor->weight;
      Matrix w(weight.N, weight.K);
      for (int64_t n = 0; n < w.N; ++n) decode_row(weight, n, w.row(n));
      const GridMatrix codes = round_to_nearest(w, grid, pool_);
      memory.emplace_back(static_cast<size_t>(w.N * w.K));
      for (int64_t n = 0; n < w.N; ++n) decode_row(codes, n, memory.back().data() + n * w.K);
      weight = {.encoding = kF32, .N = w.N, .K = w.K,
                .data = reinterpret_cast<const std::byte*>(memory.back().data())};
    }
    return out;
  }

  // Log probabilities of every fourth token of the rows, by the engine's scalar kernels.
  std::vector<std::vector<double>> log_probabilities(const Checkpoint& checkpoint) {
    const Model model(checkpoint, pool_, "ref");
    Scorer scorer(model, KvType::f32, kLength);
    const auto V = static_cast<size_t>(checkpoint.config.vocab_size);
    std::vector<std::vector<double>> all;
    for (int64_t r = 0; r < kRows; ++r) {
      scorer.score({rows_.row(r), static_cast<size_t>(kLength)}, 0,
                   [&](int64_t position, const float* logits) {
                     if (position % 4 != 3) return;
                     std::vector<double> row(logits, logits + V);
                     double sum = 0;
                     for (const double logit : row) sum += std::exp(logit);
                     for (double& logit : row) logit -= std::log(sum);
                     all.push_back(std::move(row));
                   });
    }
    return all;
  }

  ThreadPool pool_{2, /*pin=*/false};
  Checkpoint source_;
  CalibrationRows rows_;
};

double mean_kl(const std::vector<std::vector<double>>& p, const std::vector<std::vector<double>>& q) {
  double sum = 0;
  for (size_t t = 0; t < p.size(); ++t) {
    for (size_t v = 0; v < p[t].size(); ++v) sum += std::exp(p[t][v]) * (p[t][v] - q[t][v]);
  }
  return sum / static_cast<double>(p.size());
}

TEST_F(SensitivityTest, KlIsTheDivergenceOfTheModelWithTheSetRounded) {
  const std::vector<IntegerGrid> grids = {{2, 32, false}, {4, 32, false}, {8, 32, false}};
  const auto costs =
      measure_sensitivity(source_, rows_, grids, SensitivityMeasure::kl, pool_, [](double) {});
  ASSERT_EQ(costs.size(), 2u * kNumSets);
  const auto base = log_probabilities(source_);
  ASSERT_EQ(base.size(), static_cast<size_t>(kRows * kLength / 4));
  for (size_t s = 0; s < costs.size(); ++s) {
    for (size_t f = 0; f < grids.size(); ++f) {
      std::deque<std::vector<float>> memory;
      const Checkpoint variant = rounded(static_cast<int64_t>(s) / kNumSets,
                                         kLinearSets[s % kNumSets], grids[f], memory);
      const double expected = mean_kl(base, log_probabilities(variant));
      EXPECT_NEAR(costs[s][f], expected, 1e-2 * expected + 1e-7) << s << " " << grids[f].bits;
    }
    EXPECT_LT(costs[s][1], costs[s][0]) << s << ": more bits cost less";
    EXPECT_LT(costs[s][2], costs[s][1]) << s;
    EXPECT_GT(costs[s][1], 1e-5) << s;
  }
}

}  // namespace
}  // namespace tandem
