#include "compress/device_forward.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/table.h"

namespace tandem {
namespace {

// What a forward of this shape holds, in floats.
struct Sizes {
  int64_t weights, vectors, wide, scores;
};
Sizes sizes_of(const ModelConfig& c, int64_t length, int64_t tokens) {
  const int64_t heads = (c.num_heads + 2 * c.num_kv_heads) * c.head_dim;
  const int64_t N = std::max(heads, 2 * c.ffn_width);
  return {std::max(N * c.width, c.width * c.num_heads * c.head_dim),
          std::max(N, c.width) + 2 * c.head_dim, tokens * N,
          c.num_kv_heads * length * length};
}

Activations plain(float* out, int64_t T, int64_t K) {
  return {.type = ActType::f32, .T = T, .K = K, .f32 = out};
}

}  // namespace

uint64_t DeviceForward::device_bytes(const ModelConfig& config, int64_t length,
                                     int64_t max_sequences) {
  const Sizes sizes = sizes_of(config, length, length * max_sequences);
  return static_cast<uint64_t>(sizes.weights + sizes.vectors + sizes.wide + sizes.scores +
                               config.width + length * config.head_dim) *
         sizeof(float);
}

DeviceForward::DeviceForward(const ModelConfig& config, int64_t length, int64_t max_sequences,
                             ThreadPool& pool, FloatWork& work)
    : config_(config),
      length_(length),
      max_sequences_(max_sequences),
      work_(work),
      ops_(find_ops(work.device().isa())),
      context_{&pool, &work.device()} {
  const auto floats = [&](int64_t n) {
    return Buffer(static_cast<size_t>(n) * sizeof(float), &work_.device());
  };
  const Sizes sizes = sizes_of(config, length, max_tokens());
  weights_ = floats(sizes.weights);
  vectors_ = floats(sizes.vectors);
  wide_ = floats(sizes.wide);
  scores_ = floats(sizes.scores);
  norm_ = floats(config.width);
  const int64_t D = config.head_dim;
  std::vector<int32_t> positions(static_cast<size_t>(length));
  for (int64_t t = 0; t < length; ++t) positions[static_cast<size_t>(t)] = static_cast<int32_t>(t);
  Batch batch;
  batch.T = length;
  batch.positions = positions.data();
  batch.sequences.push_back({.num_tokens = length, .context = length, .length = length});
  std::vector<float> inv_freq(static_cast<size_t>(D / 2)), angles(static_cast<size_t>(length * D));
  fill_cos_sin({&pool}, batch, Rope(config), inv_freq.data(), angles.data());
  cos_sin_ = floats(length * D);
  work_.device().upload(cos_sin_.data(), angles.data(), angles.size() * sizeof(float));
}

const float* DeviceForward::place_vector(const std::vector<float>& values) {
  if (values.empty()) return nullptr;
  float* to = vectors_.as<float>() + num_vector_floats_;
  num_vector_floats_ += static_cast<int64_t>(values.size());
  work_.device().upload(to, values.data(), values.size() * sizeof(float));
  return to;
}

void DeviceForward::place(const LayerWeights& weights, LinearSet set) {
  float* to = weights_.as<float>();
  std::vector<float> bias;
  for (const Linear linear : linears_of(set)) {
    const LinearWork& work = weights[linear];
    work_.device().upload(to, work.weight.values.data(), work.weight.values.size() * sizeof(float));
    to += work.weight.values.size();
    bias.insert(bias.end(), work.bias.begin(), work.bias.end());
  }
  num_vector_floats_ = 0;
  bias_ = place_vector(bias);
  if (set != LinearSet::qkv) return;
  transform_ = {bias_, place_vector(weights.q_norm), place_vector(weights.k_norm),
                static_cast<float>(config_.rms_eps)};
}

void DeviceForward::norm(const float* x, int64_t T, const std::vector<float>& weight,
                         float* out) const {
  work_.device().upload(norm_.data(), weight.data(), weight.size() * sizeof(float));
  const auto eps = static_cast<float>(config_.rms_eps);
  ops_.rms_norm(context_, x, T, config_.width, norm_.as<float>(), eps,
                plain(out, T, config_.width));
}

void DeviceForward::multiply(const float* x, int64_t T, int64_t N, int64_t K, bool accumulates,
                             float* y) const {
  ProductBatch product;
  product.M = T;
  product.N = N;
  product.K = K;
  product.a = {x, K};
  product.b = {weights_.as<float>(), 1, K};
  product.c = y;
  product.ldc = N;
  product.accumulates = accumulates;
  work_.multiply(product);
}

void DeviceForward::attention(const LayerWeights&, int64_t layer, const float* h, int64_t T,
                              float* attended) {
  CHECK(T <= max_tokens() && T % length_ == 0, "T {} length {}", T, length_);
  const HeadShape shape{T, length_, config_.num_heads, config_.num_kv_heads, config_.head_dim};
  float* qkv = wide_.as<float>();
  multiply(h, T, (shape.H + 2 * shape.G) * shape.D, config_.width, false, qkv);
  work_.rotate_heads(qkv, transform_, cos_sin_.as<float>(), shape);
  work_.attention(qkv, shape, config_.window(layer), scores_.as<float>(), attended);
}

void DeviceForward::gate_up(const LayerWeights&, const float* h, int64_t T, float* activated) {
  CHECK(T <= max_tokens(), "T {}", T);
  const int64_t F = config_.ffn_width;
  float* wide = wide_.as<float>();
  multiply(h, T, 2 * F, config_.width, false, wide);
  if (bias_ != nullptr) ops_.device->add_bias(context_, bias_, T, 2 * F, wide);
  ops_.act_mul(context_, wide, T, F, plain(activated, T, F));
}

void DeviceForward::add_linear(const LinearWork& linear, const float* x, int64_t T,
                               float* out) const {
  const int64_t N = linear.weight.N;
  multiply(x, T, N, linear.weight.K, true, out);
  if (bias_ != nullptr) ops_.device->add_bias(context_, bias_, T, N, out);
}

}  // namespace tandem
