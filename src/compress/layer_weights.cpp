#include "compress/layer_weights.h"

#include <fmt/format.h>

#include <atomic>
#include <cmath>

#include "base/error.h"

namespace tandem {
namespace {

constexpr Linear kQkv[] = {Linear::q, Linear::k, Linear::v};
constexpr Linear kO[] = {Linear::o};
constexpr Linear kGateUp[] = {Linear::gate, Linear::up};
constexpr Linear kDown[] = {Linear::down};

constexpr const char* kModules[kNumLinears] = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};

bool is_finite(const float* x, int64_t n) {
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) finite &= std::isfinite(x[i]);
  return finite;
}

void load_matrix(const Checkpoint& source, const std::string& name, ThreadPool& pool,
                 Matrix* out) {
  const Weight& weight = source.weight(name);
  Matrix& matrix = *out;
  matrix.N = weight.N;
  matrix.K = weight.K;
  matrix.values.resize(static_cast<size_t>(weight.N * weight.K));
  std::atomic<int64_t> bad_row{-1};
  pool.parallel_for(weight.N, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) {
      decode_row(weight, n, matrix.row(n));
      if (!is_finite(matrix.row(n), weight.K)) bad_row.store(n, std::memory_order_relaxed);
    }
  });
  if (bad_row.load() >= 0) {
    fail(ErrorKind::bad_file, "{}: {}: row {} has a weight that is NaN or infinite",
         source.path.string(), quote(name), bad_row.load());
  }
}

std::vector<float> load_vector(const Checkpoint& source, const std::string& name,
                               ThreadPool& pool) {
  Matrix row;
  load_matrix(source, name, pool, &row);
  return std::move(row.values);
}

}  // namespace

std::span<const Linear> linears_of(LinearSet set) {
  switch (set) {
    case LinearSet::qkv: return kQkv;
    case LinearSet::o: return kO;
    case LinearSet::gate_up: return kGateUp;
    case LinearSet::down: return kDown;
  }
  return {};
}

const char* set_name(LinearSet set) {
  constexpr const char* kNames[kNumSets] = {"qkv", "o", "gate_up", "down"};
  return kNames[static_cast<int>(set)];
}

int64_t width_of(const ModelConfig& config, Linear linear) {
  return linear == Linear::o      ? config.num_heads * config.head_dim
         : linear == Linear::down ? config.ffn_width
                                  : config.width;
}

std::string module_name(int64_t layer, Linear linear) {
  return fmt::format("model.layers.{}.{}", layer, kModules[static_cast<int>(linear)]);
}

Weight EncodedMatrix::weight() const {
  return {.encoding = encoding,
          .N = N,
          .K = K,
          .data = data.data(),
          .scales = scales.empty() ? nullptr : scales.data()};
}

LayerWeights load_layer(const Checkpoint& source, int64_t layer, ThreadPool& pool) {
  LayerWeights weights;
  load_layer(source, layer, pool, &weights);
  return weights;
}

void load_layer(const Checkpoint& source, int64_t layer, ThreadPool& pool, LayerWeights* out) {
  LayerWeights& weights = *out;
  for (int i = 0; i < kNumLinears; ++i) {
    const std::string module = module_name(layer, static_cast<Linear>(i));
    LinearWork& work = weights.linears[static_cast<size_t>(i)];
    Matrix memory = std::move(work.weight);
    work = {};
    work.weight = std::move(memory);
    load_matrix(source, module + ".weight", pool, &work.weight);
    if (source.find(module + ".bias") != nullptr) {
      work.bias = load_vector(source, module + ".bias", pool);
    }
  }
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  weights.attn_norm = load_vector(source, prefix + "input_layernorm.weight", pool);
  weights.ffn_norm = load_vector(source, prefix + "post_attention_layernorm.weight", pool);
  if (source.config.qk_norm) {
    weights.q_norm = load_vector(source, prefix + "self_attn.q_norm.weight", pool);
    weights.k_norm = load_vector(source, prefix + "self_attn.k_norm.weight", pool);
  }
}

}  // namespace tandem
