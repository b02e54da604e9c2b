// AWQ, SmoothQuant and Wanda as steps: what they fold leaves the layer's function, they take what
// their options name, and judge by the layer as it came.
#include <gtest/gtest.h>

#include <cmath>

#include "base/error_message.h"
#include "base/random.h"
#include "compress/methods.h"
#include "compress/sparse_gpt.h"

namespace tandem {
namespace {

constexpr int64_t kC = 32, kF = 64, kT = 48;

ModelConfig config_of(int64_t kv_heads) {
  ModelConfig config;
  config.num_layers = 1;
  config.width = kC;
  config.num_heads = 4;
  config.num_kv_heads = kv_heads;
  config.head_dim = 8;
  config.ffn_width = kF;
  return config;
}

Matrix random_matrix(int64_t N, int64_t K, uint64_t seed) {
  Matrix w(N, K);
  Random random(seed);
  for (float& value : w.values) value = 0.2f * static_cast<float>(random.normal());
  return w;
}

LayerWeights random_layer(const ModelConfig& config) {
  LayerWeights weights;
  const int64_t kv = config.num_kv_heads * config.head_dim;
  const int64_t rows[] = {kC, kv, kv, kC, kF, kF, kC}, columns[] = {kC, kC, kC, kC, kC, kC, kF};
  for (size_t i = 0; i < kNumLinears; ++i) {
    weights.linears[i].weight = random_matrix(rows[i], columns[i], 10 + i);
  }
  weights[Linear::v].bias.assign(static_cast<size_t>(kv), 0.3f);
  weights.attn_norm.assign(kC, 1.0f);
  weights.ffn_norm.assign(kC, 0.5f);
  return weights;
}

// y[T, N] = x . W^T + bias.
Matrix linear(const Matrix& x, const LinearWork& work) {
  Matrix y(x.N, work.weight.N);
  for (int64_t t = 0; t < x.N; ++t) {
    for (int64_t n = 0; n < y.K; ++n) {
      float sum = work.bias.empty() ? 0.0f : work.bias[static_cast<size_t>(n)];
      for (int64_t k = 0; k < x.K; ++k) sum += x.row(t)[k] * work.weight.row(n)[k];
      y.row(t)[n] = sum;
    }
  }
  return y;
}

Matrix times(Matrix x, const std::vector<float>& factors) {
  for (size_t i = 0; i < x.values.size(); ++i) x.values[i] *= factors[i % factors.size()];
  return x;
}

Matrix first_rows(Matrix x, int64_t N) {
  x.N = N;
  x.values.resize(static_cast<size_t>(N * x.K));
  return x;
}

// A layer without softmax: attention is o of v, its heads repeated as query heads need them, plus q
// and k; enough to feel every fold.
class PlainLayer : public LayerSearch {
 public:
  PlainLayer(const ModelConfig& config, uint64_t seed)
      : config_(config), x_(random_matrix(kT, kC, seed)) {
    for (int64_t t = 0; t < kT; ++t) x_.row(t)[3] *= 25.0f;  // a loud channel
  }
  int64_t num_tokens() const override { return kT; }
  int64_t num_rough_tokens() const override { return kT / 2; }
  Matrix attention_output(const LayerWeights& weights, int64_t T) const override {
    const Matrix normed = times(x_, weights.attn_norm);
    const Matrix q = linear(normed, weights[Linear::q]), k = linear(normed, weights[Linear::k]);
    Matrix out = linear(attended(weights), weights[Linear::o]);
    for (size_t i = 0; i < out.values.size(); ++i)
      out.values[i] += q.values[i] + k.values[i % k.values.size()];
    return first_rows(std::move(out), T);
  }
  Matrix mlp_output(const LayerWeights& weights, int64_t T) const override {
    return first_rows(linear(activated(weights), weights[Linear::down]), T);
  }

  Matrix attended(const LayerWeights& weights) const {
    const Matrix v = linear(times(x_, weights.attn_norm), weights[Linear::v]);
    Matrix out(kT, kC);
    for (int64_t t = 0; t < kT; ++t) {
      for (int64_t c = 0; c < kC; ++c) out.row(t)[c] = v.row(t)[c % v.K];
    }
    return out;
  }
  Matrix activated(const LayerWeights& weights) const {
    const Matrix normed = times(x_, weights.ffn_norm);
    Matrix gate = linear(normed, weights[Linear::gate]);
    const Matrix up = linear(normed, weights[Linear::up]);
    for (size_t i = 0; i < gate.values.size(); ++i) {
      gate.values[i] = gate.values[i] / (1 + std::exp(-gate.values[i])) * up.values[i];
    }
    return gate;
  }
  std::array<InputStatistics, kNumSets> statistics(const LayerWeights& weights,
                                                   ThreadPool& pool) const {
    const Matrix inputs[] = {times(x_, weights.attn_norm), attended(weights),
                             times(x_, weights.ffn_norm), activated(weights)};
    std::array<InputStatistics, kNumSets> all;
    for (size_t s = 0; s < kNumSets; ++s) {
      StatisticsBuilder builder(inputs[s].K, kT, 1, true, pool);
      builder.add(inputs[s].values.data(), kT);
      all[s] = builder.finish();
    }
    return all;
  }

 private:
  const ModelConfig& config_;
  Matrix x_;
};

StepSpec spec_of(const std::string& method) {
  StepSpec spec;
  spec.method = method;
  spec.options.where = "test";
  const auto put = [&](const char* key, auto value) { spec.options.values[key] = {value, "test"}; };
  if (method == "awq") {
    put("group", int64_t{16});
    put("clip", false);
  }
  return spec;
}

double distance(const Matrix& a, const Matrix& b) {
  double sum = 0, whole = 0;
  for (size_t i = 0; i < a.values.size(); ++i) {
    sum += std::pow(a.values[i] - b.values[i], 2);
    whole += std::pow(a.values[i], 2);
  }
  return sum / whole;
}

struct Prepared {
  ModelConfig config;
  ThreadPool pool{2, false};
  LayerWeights before, after;
  PlainLayer layer;
  std::array<InputStatistics, kNumSets> inputs;
  std::unique_ptr<Step> step;

  Prepared(const StepSpec& spec, int64_t kv_heads)
      : config(config_of(kv_heads)), before(random_layer(config)), after(before), layer(config, 1) {
    step = make_step(spec, config);
    inputs = layer.statistics(before, pool);
    LayerWork work{config, 0, after, inputs, &layer, pool};
    step->prepare_layer(work);
  }
};

class Folds : public testing::TestWithParam<std::pair<const char*, int64_t>> {};

TEST_P(Folds, LeaveTheFunction) {
  Prepared made(spec_of(GetParam().first), GetParam().second);
  EXPECT_LT(
      distance(made.layer.attention_output(made.before, kT),
               made.layer.attention_output(made.after, kT)),
      1e-10);
  EXPECT_LT(
      distance(made.layer.mlp_output(made.before, kT), made.layer.mlp_output(made.after, kT)),
      1e-10);
  EXPECT_NE(made.before.attn_norm, made.after.attn_norm);
  EXPECT_NE(made.before.ffn_norm, made.after.ffn_norm);
  // Later steps see the statistics of what the set is now given.
  const auto now = made.layer.statistics(made.after, made.pool);
  for (size_t s = 0; s < kNumSets; ++s) {
    for (size_t k = 0; k < made.inputs[s].max_magnitude.size(); ++k) {
      EXPECT_NEAR(made.inputs[s].max_magnitude[k] / now[s].max_magnitude[k], 1, 1e-4)
          << s << " " << k;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Steps, Folds,
                         testing::Values(std::pair{"awq", 4}, std::pair{"awq", 1},
                                         std::pair{"smoothquant", 4}, std::pair{"smoothquant", 2}));

TEST(AwqStep, SharedKvHeadsTakeNoScales) {
  const Prepared shared(spec_of("awq"), 1), own(spec_of("awq"), 4);
  EXPECT_EQ(shared.before[Linear::o].weight.values, shared.after[Linear::o].weight.values);
  EXPECT_EQ(shared.before[Linear::v].bias, shared.after[Linear::v].bias);
  EXPECT_NE(own.before[Linear::o].weight.values, own.after[Linear::o].weight.values);
  EXPECT_NE(own.before[Linear::v].bias, own.after[Linear::v].bias);
}

TEST(WandaStep, MasksByTheInputsOfTheLayerAsItCame) {
  Prepared made(spec_of("wanda"), 4);
  const Matrix& down = made.before[Linear::down].weight;
  InputStatistics& own = made.inputs[static_cast<size_t>(LinearSet::down)];
  const auto expected = wanda_mask(down, own, made.pool);
  InputStatistics at_its_turn = own;  // as if the sets before had changed them
  for (int64_t k = 0; k < kF; k += 2) at_its_turn.gram[static_cast<size_t>(k * kF + k)] *= 100.0f;
  ASSERT_NE(wanda_mask(down, at_its_turn, made.pool), expected);
  SetWork work{made.config, 0, LinearSet::down, made.after, at_its_turn, made.pool};
  made.step->run_set(work);
  EXPECT_EQ(made.after[Linear::down].keep, expected);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(made.after[Linear::down].weight.values[i], expected[i] != 0 ? down.values[i] : 0.0f);
  }
}

TEST(AwqStep, RoundsWhatItTakes) {
  StepSpec spec = spec_of("awq");
  StepOverride skip;
  skip.glob = "*.k_proj";
  skip.skip = true;
  spec.overrides.push_back(skip);
  Prepared made(spec, 4);
  SetWork work{made.config, 0, LinearSet::qkv, made.after, made.inputs[0], made.pool};
  made.step->run_set(work);
  EXPECT_TRUE(made.after[Linear::q].has_result());
  EXPECT_FALSE(made.after[Linear::k].has_result());
  EXPECT_TRUE(made.step->gives_result(0, Linear::v));
  EXPECT_FALSE(made.step->gives_result(0, Linear::k));
  const auto& grid = std::get<GridMatrix>(made.after[Linear::q].result).grid;
  EXPECT_EQ(grid.group, 16);
  EXPECT_FALSE(grid.symmetric);
  // The columns of k are scaled with the others: they share the norm.
  EXPECT_NE(made.before[Linear::k].weight.values, made.after[Linear::k].weight.values);
}

TEST(AwqStep, ClipsAllButQAndK) {
  StepSpec spec = spec_of("awq");
  spec.options.values["clip"] = {true, "test"};
  spec.options.values["bits"] = {int64_t{3}, "test"};
  Prepared clipped(spec, 1);
  spec.options.values["clip"] = {false, "test"};
  Prepared whole(spec, 1);
  for (size_t i = 0; i < kNumLinears; ++i) {
    const auto linear = static_cast<Linear>(i);
    const bool same = clipped.after[linear].weight.values == whole.after[linear].weight.values;
    EXPECT_EQ(same, linear == Linear::q || linear == Linear::k) << i;
  }
}

TEST(AwqStep, OneSetHasOneGrid) {
  StepSpec spec = spec_of("awq");
  StepOverride eight;
  eight.glob = "*.v_proj";
  eight.options.values["bits"] = {int64_t{8}, "test"};
  spec.overrides.push_back(eight);
  EXPECT_EQ(message_of(ErrorKind::usage, [&] { Prepared made(spec, 4); }),
            "awq: model.layers.0.self_attn.q_proj and model.layers.0.self_attn.v_proj share their "
            "scales, expected the same options for both");
}

TEST(StaticInputsStep, TheScaleReachesTheLargestInput) {
  StepSpec spec = spec_of("static-inputs");
  Prepared made(spec, 4);
  InputStatistics inputs = made.inputs[3];
  inputs.max_magnitude.assign(inputs.max_magnitude.size(), 1.0f);
  inputs.max_magnitude[7] = 255.0f;
  SetWork work{made.config, 0, LinearSet::down, made.after, inputs, made.pool};
  made.step->run_set(work);
  EXPECT_EQ(made.after[Linear::down].input_scale, 2.0f);  // 255 / 127.5
  EXPECT_EQ(made.after[Linear::up].input_scale, 0.0f);
  spec.options.values["type"] = {std::string("fp8"), "test"};
  const auto fp8 = make_step(spec, made.config);
  inputs.max_magnitude[7] = 896.0f;
  fp8->run_set(work);
  EXPECT_EQ(made.after[Linear::down].input_scale, 2.0f);  // 896 / 448
}

}  // namespace
}  // namespace tandem
