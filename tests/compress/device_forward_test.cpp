// The layer's pieces on a GPU against those on the host, and a whole compression on both. Skipped
// without a GPU.
#include "compress/device_forward.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "compress/sequential.h"
#include "compress/step_recipe.h"
#include "compress/compress_steps.h"
#include "formats/random_checkpoint.h"

namespace tandem {
namespace {

class DeviceForwardTest : public testing::Test {
 protected:
  void SetUp() override {
    try {
      device_ = open_device("cuda");
      work_ = make_float_work(*device_);
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();
    }
  }
  std::shared_ptr<Device> device_;
  std::unique_ptr<FloatWork> work_;
  ThreadPool pool_{2};
};

ModelConfig small_config() {
  ModelConfig config;
  config.family = "qwen3";
  config.num_layers = 2;
  config.width = 128;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 32;
  config.ffn_width = 192;
  config.vocab_size = 64;
  config.max_context = 128;
  config.sliding_window = 30;
  config.full_layers = {false, true};
  return config;
}

void fill(std::vector<float>* values, size_t count, uint64_t seed) {
  Random random(seed);
  values->resize(count);
  for (float& value : *values) value = static_cast<float>(random.normal());
}

// With biases everywhere and norms of the heads.
LayerWeights some_layer(const ModelConfig& config, ThreadPool& pool) {
  LayerWeights weights = load_layer(random_checkpoint(config, kBF16, kBF16, 3, pool), 0, pool);
  uint64_t seed = 10;
  for (LinearWork& linear : weights.linears) {
    fill(&linear.bias, static_cast<size_t>(linear.weight.N), ++seed);
  }
  for (auto* norm : {&weights.q_norm, &weights.k_norm}) {
    fill(norm, static_cast<size_t>(config.head_dim), ++seed);
  }
  fill(&weights.attn_norm, static_cast<size_t>(config.width), ++seed);
  return weights;
}

class OnDevice {
 public:
  OnDevice(Device& device, const std::vector<float>& values)
      : device_(device), buffer_(values.size() * sizeof(float), &device) {
    device.upload(buffer_.data(), values.data(), buffer_.size_bytes());
  }
  float* data() { return buffer_.as<float>(); }
  std::vector<float> values() {
    std::vector<float> out(buffer_.size_bytes() / sizeof(float));
    device_.download(out.data(), buffer_.data(), buffer_.size_bytes());
    return out;
  }

 private:
  Device& device_;
  Buffer buffer_;
};

double relative(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / size);
}

TEST_F(DeviceForwardTest, PiecesAreTheHosts) {
  const ModelConfig config = small_config();
  const int64_t length = 70, rows = 3, T = length * rows;
  const LayerWeights weights = some_layer(config, pool_);
  LayerForward host(config, length, rows, pool_);
  DeviceForward there(config, length, rows, pool_, *work_);
  const auto zeros = [&](int64_t width) { return std::vector<float>(static_cast<size_t>(T * width)); };
  std::vector<float> x;
  fill(&x, static_cast<size_t>(T * config.width), 1);
  OnDevice dx(*device_, x);

  std::vector<float> h = zeros(config.width);
  OnDevice dh(*device_, h);
  host.norm(x.data(), T, weights.attn_norm, h.data());
  there.norm(dx.data(), T, weights.attn_norm, dh.data());
  EXPECT_LT(relative(dh.values(), h), 1e-6);

  for (const int64_t layer : {0, 1}) {  // with a window and without
    std::vector<float> attended = zeros(config.num_heads * config.head_dim);
    OnDevice dattended(*device_, attended);
    host.attention(weights, layer, h.data(), T, attended.data());
    there.place(weights, LinearSet::qkv);
    there.attention(weights, layer, dh.data(), T, dattended.data());
    EXPECT_LT(relative(dattended.values(), attended), 1e-5) << layer;
    if (layer == 0) continue;
    host.add_linear(weights[Linear::o], attended.data(), T, x.data());
    there.place(weights, LinearSet::o);
    there.add_linear(weights[Linear::o], dattended.data(), T, dx.data());
    EXPECT_LT(relative(dx.values(), x), 1e-5);
  }
  std::vector<float> activated = zeros(config.ffn_width);
  OnDevice dactivated(*device_, activated);
  host.gate_up(weights, h.data(), T, activated.data());
  there.place(weights, LinearSet::gate_up);
  there.gate_up(weights, dh.data(), T, dactivated.data());
  EXPECT_LT(relative(dactivated.values(), activated), 1e-5);
}

// Every method that measures inputs, by whatever of it the device does.
TEST_F(DeviceForwardTest, RecipesGiveTheHostsLayers) {
  const ModelConfig config = small_config();
  const Checkpoint source = random_checkpoint(config, kBF16, kBF16, 5, pool_);
  CalibrationRows rows;
  rows.length = 40;
  Random random(2);
  for (int i = 0; i < 40 * 20; ++i) {
    rows.ids.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(config.vocab_size))));
  }
  for (const char* recipe : {"gptq", "awq", "smoothquant", "sparsegpt", "sparsegpt-int4", "wanda"}) {
    StepRecipe read = read_step_recipe(recipe);
    for (StepSpec& step : read.steps) {
      if (recipe != std::string("smoothquant") && step.method != "sparsegpt" && step.method != "wanda") {
        step.options.values["group"] = {int64_t{32}, "test"};
      }
    }
    const Steps steps = make_steps(read, config);
    std::vector<LayerWeights> layers[2];
    for (const bool on_device : {false, true}) {
      const auto folder = std::filesystem::path(testing::TempDir()) /
                          fmt::format("device-layers-{}-{}", recipe, on_device);
      std::filesystem::remove_all(folder);
      std::filesystem::create_directories(folder);
      compress_layers(source, steps, &rows, folder, pool_, {},
                      [&](int64_t, const LayerWeights& layer) { layers[on_device].push_back(layer); },
                      on_device ? work_.get() : nullptr);
      std::filesystem::remove_all(folder);
    }
    for (size_t l = 0; l < 2; ++l) {
      for (size_t i = 0; i < kNumLinears; ++i) {
        const Matrix &host = layers[0][l].linears[i].weight, &there = layers[1][l].linears[i].weight;
        size_t equal = 0;
        for (size_t k = 0; k < host.values.size(); ++k) equal += host.values[k] == there.values[k];
        EXPECT_GT(static_cast<double>(equal) / static_cast<double>(host.values.size()), 0.97)
            << recipe << " layer " << l << " linear " << i;
      }
    }
  }
}

}  // namespace
}  // namespace tandem
