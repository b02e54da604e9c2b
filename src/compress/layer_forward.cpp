#include "compress/layer_forward.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "kernels/table.h"

namespace tandem {
namespace {

Buffer floats(int64_t n) { return Buffer(static_cast<size_t>(n) * sizeof(float)); }

Activations plain(float* out, int64_t T, int64_t K) {
  return {.type = ActType::f32, .T = T, .K = K, .f32 = out};
}

}  // namespace

LayerForward::LayerForward(const ModelConfig& config, int64_t length, int64_t max_sequences,
                           ThreadPool& pool)
    : config_(config),
      length_(length),
      max_sequences_(max_sequences),
      pool_(pool),
      ops_(find_ops(best_isa())),
      multiply_(find_multiply(best_isa())),
      rope_(config),
      context_{&pool},
      layout_{KvType::f32, 1, config.num_kv_heads, config.head_dim} {
  const int64_t T = max_tokens(), H = config.num_heads, G = config.num_kv_heads;
  const int64_t D = config.head_dim, pages_each = (length + kPageTokens - 1) / kPageTokens;
  positions_.resize(static_cast<size_t>(T));
  for (int64_t t = 0; t < T; ++t) positions_[static_cast<size_t>(t)] = static_cast<int32_t>(t % length);
  pages_.resize(static_cast<size_t>(max_sequences * pages_each));
  for (size_t p = 0; p < pages_.size(); ++p) pages_[p] = static_cast<int32_t>(p);
  batch_.T = T;
  batch_.positions = positions_.data();
  for (int64_t s = 0; s < max_sequences; ++s) {
    batch_.sequences.push_back({.first_token = s * length,
                                .num_tokens = length,
                                .context = length,
                                .pages = pages_.data() + s * pages_each,
                                .length = length});
  }
  wide_ = floats(T * std::max((H + 2 * G) * D, 2 * config.ffn_width));
  cos_sin_ = floats(T * D);
  scratch_ = floats(pool.size() * attention_scratch_floats(H, G, D));
  cache_ = Buffer(static_cast<size_t>(max_sequences * pages_each * layout_.page_bytes()));
  std::vector<float> inv_freq(static_cast<size_t>(D / 2));
  fill_cos_sin(context_, batch_, rope_, inv_freq.data(), cos_sin_.as<float>());
}

uint64_t LayerForward::buffer_bytes() const {
  return wide_.size_bytes() + cos_sin_.size_bytes() + cache_.size_bytes() + scratch_.size_bytes();
}

void LayerForward::norm(const float* x, int64_t T, const std::vector<float>& weight,
                        float* out) const {
  const auto eps = static_cast<float>(config_.rms_eps);
  ops_.rms_norm(context_, x, T, config_.width, weight.data(), eps, plain(out, T, config_.width));
}

void LayerForward::multiply_into(const LinearWork& linear, const float* x, int64_t T, float* y,
                                 int64_t ldy, int64_t column) const {
  const Matrix& w = linear.weight;
  pool_.parallel_for(T, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) std::fill_n(y + t * ldy + column, w.N, 0.0f);
  });
  multiply_(pool_, {T, w.N, w.K, {x, w.K}, {w.values.data(), 1, w.K}, y + column, ldy});
}

void LayerForward::attention(const LayerWeights& weights, int64_t layer, const float* h, int64_t T,
                             float* attended) {
  CHECK(T <= max_tokens() && T % length_ == 0, "T {} length {}", T, length_);
  const int64_t H = config_.num_heads;
  float* qkv = wide_.as<float>();
  std::vector<float> bias;
  int64_t width = 0, column = 0;
  for (const Linear linear : linears_of(LinearSet::qkv)) width += weights[linear].weight.N;
  for (const Linear linear : linears_of(LinearSet::qkv)) {
    const LinearWork& work = weights[linear];
    multiply_into(work, h, T, qkv, width, column);
    bias.insert(bias.end(), work.bias.begin(), work.bias.end());
    column += work.weight.N;
  }
  const bool has_norm = !weights.q_norm.empty();
  const HeadTransform transform{bias.empty() ? nullptr : bias.data(),
                                has_norm ? weights.q_norm.data() : nullptr,
                                has_norm ? weights.k_norm.data() : nullptr,
                                static_cast<float>(config_.rms_eps)};
  Batch batch = batch_;
  batch.T = T;
  batch.sequences.resize(static_cast<size_t>(T / length_));
  KvCache cache{layout_, cache_.data()};
  cache.layout.window = config_.window(layer);
  ops_.rope_append(context_, qkv, transform, batch, H, cos_sin_.as<float>(), cache, 0);
  ops_.attention(context_, qkv, batch, H, cache, 0, scratch_.as<float>(), attended);
}

void LayerForward::gate_up(const LayerWeights& weights, const float* h, int64_t T,
                           float* activated) {
  CHECK(T <= max_tokens(), "T {}", T);
  const int64_t F = config_.ffn_width;
  float* wide = wide_.as<float>();
  int64_t column = 0;
  for (const Linear linear : linears_of(LinearSet::gate_up)) {
    const LinearWork& work = weights[linear];
    multiply_into(work, h, T, wide, 2 * F, column);
    if (!work.bias.empty()) {
      for (int64_t t = 0; t < T; ++t) {
        for (int64_t n = 0; n < F; ++n) wide[t * 2 * F + column + n] += work.bias[static_cast<size_t>(n)];
      }
    }
    column += F;
  }
  ops_.act_mul(context_, wide, T, F, plain(activated, T, F));
}

void LayerForward::add_linear(const LinearWork& linear, const float* x, int64_t T,
                              float* out) const {
  const Matrix& w = linear.weight;
  multiply_(pool_, {T, w.N, w.K, {x, w.K}, {w.values.data(), 1, w.K}, out, w.N});
  if (linear.bias.empty()) return;
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t n = 0; n < w.N; ++n) out[t * w.N + n] += linear.bias[static_cast<size_t>(n)];
  }
}

}  // namespace tandem
