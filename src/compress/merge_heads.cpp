#include "compress/merge_heads.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "compress/attention_heads.h"
#include "compress/attention_refit.h"
#include "compress/compress.h"
#include "compress/head_alignment.h"
#include "compress/head_grouping.h"
#include "compress/layer_weights.h"

namespace tandem {
namespace {

void check_merge(const Checkpoint& source, const HeadMerge& options) {
  const ModelConfig& config = source.config;
  if (options.num_kv_heads < 1 || options.num_kv_heads >= config.num_kv_heads ||
      config.num_kv_heads % options.num_kv_heads != 0) {
    fail(ErrorKind::usage, "{} KV heads, expected a divisor of the model's {} that is below it",
         options.num_kv_heads, config.num_kv_heads);
  }
  if (options.aligned && config.qk_norm) {
    fail(ErrorKind::usage,
         "{}: q and k have norms, which do not commute with turning a head; expected a model "
         "without, or recipe gqa-mean",
         source.path.string());
  }
  check_not_compressed(source);
}

// The layer with these heads' matrices.
LayerWeights with_heads(LayerWeights weights, const AttentionHeads& heads) {
  weights[Linear::q].weight = heads.q;
  weights[Linear::k].weight = heads.k;
  weights[Linear::v].weight = heads.v;
  weights[Linear::o].weight = heads.o;
  weights[Linear::q].bias = heads.q_bias;
  weights[Linear::k].bias = heads.k_bias;
  weights[Linear::v].bias = heads.v_bias;
  return weights;
}

AttentionHeads take_heads(LayerWeights weights, const ModelConfig& config) {
  AttentionHeads heads;
  heads.num_heads = config.num_heads;
  heads.num_kv_heads = config.num_kv_heads;
  heads.head_dim = config.head_dim;
  heads.q = std::move(weights[Linear::q].weight);
  heads.k = std::move(weights[Linear::k].weight);
  heads.v = std::move(weights[Linear::v].weight);
  heads.o = std::move(weights[Linear::o].weight);
  heads.q_bias = std::move(weights[Linear::q].bias);
  heads.k_bias = std::move(weights[Linear::k].bias);
  heads.v_bias = std::move(weights[Linear::v].bias);
  return heads;
}

HeadRotations no_rotations(const AttentionHeads& heads) {
  const int64_t G = heads.num_kv_heads, D = heads.head_dim;
  HeadRotations none;
  none.angles.resize(static_cast<size_t>(G * D / 2));
  none.orthogonal.resize(static_cast<size_t>(G * D * D));
  for (int64_t i = 0; i < G * D; ++i) none.orthogonal[static_cast<size_t>(i * D + i % D)] = 1;
  return none;
}

// Points the tensor at a copy of these numbers that the checkpoint owns.
void replace(Checkpoint* checkpoint, const std::string& name, const float* values, int64_t N,
             int64_t K) {
  const auto tensor = std::ranges::find(checkpoint->tensors, name, &NamedTensor::name);
  CHECK(tensor != checkpoint->tensors.end(), "{}", name);
  Buffer buffer(static_cast<size_t>(N * K) * sizeof(float));
  std::memcpy(buffer.data(), values, buffer.size_bytes());
  checkpoint->memory.push_back(std::make_shared<const Buffer>(std::move(buffer)));
  tensor->weight = {
      .encoding = kF32, .N = N, .K = K, .data = checkpoint->memory.back()->data()};
}

void replace_layer(Checkpoint* checkpoint, int64_t layer, const AttentionHeads& heads) {
  const auto put = [&](Linear linear, const Matrix& m, const std::vector<float>& bias) {
    const std::string module = module_name(layer, linear);
    replace(checkpoint, module + ".weight", m.values.data(), m.N, m.K);
    if (bias.empty()) return;
    replace(checkpoint, module + ".bias", bias.data(), 1, static_cast<int64_t>(bias.size()));
  };
  put(Linear::q, heads.q, heads.q_bias);
  put(Linear::k, heads.k, heads.k_bias);
  put(Linear::v, heads.v, heads.v_bias);
  put(Linear::o, heads.o, {});  // its bias, if any, belongs to no head
}

// By the weights alone.
void merge_by_weights(const Checkpoint& source, const HeadMerge& options, ThreadPool& pool,
                      MergedHeads* merged) {
  // As many layers at a time as there are threads: the algebra of one runs on one thread.
  const int64_t L = source.config.num_layers;
  for (int64_t first = 0; first < L; first += pool.size()) {
    const int64_t count = std::min<int64_t>(pool.size(), L - first);
    std::vector<AttentionHeads> heads;
    for (int64_t i = 0; i < count; ++i) {
      heads.push_back(take_heads(load_layer(source, first + i, pool), source.config));
    }
    pool.parallel_for(count, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        merged->layers[static_cast<size_t>(first + i)] =
            merge_layer(&heads[static_cast<size_t>(i)], options, nullptr);
      }
    });
    for (int64_t i = 0; i < count; ++i) {
      replace_layer(&merged->checkpoint, first + i, heads[static_cast<size_t>(i)]);
    }
  }
}

// Over calibration rows, each layer behind the merged ones.
void merge_by_outputs(const Checkpoint& source, const HeadMerge& options,
                      const CalibrationRows& rows, ThreadPool& pool, MergedHeads* merged) {
  AttentionRefit refit(source, merged->checkpoint.config, rows, pool);
  for (int64_t l = 0; l < source.config.num_layers; ++l) {
    const LayerWeights before = load_layer(source, l, pool);
    const InputStatistics inputs = refit.begin_layer(before, l);
    AttentionHeads heads = take_heads(before, source.config);
    merged->layers[static_cast<size_t>(l)] = merge_layer(&heads, options, &inputs);
    heads.o = refit.finish_layer(with_heads(before, heads));
    replace_layer(&merged->checkpoint, l, heads);
  }
}

}  // namespace

LayerMerge merge_layer(AttentionHeads* heads, const HeadMerge& options,
                       const InputStatistics* inputs) {
  LayerMerge merge;
  merge.order.resize(static_cast<size_t>(heads->num_kv_heads));
  std::iota(merge.order.begin(), merge.order.end(), int64_t{0});
  if (options.aligned) {
    merge.order = group_heads(head_similarity(covariance_of_heads(*heads, inputs)),
                              heads->num_kv_heads, options.num_kv_heads, options.seed);
    reorder_heads(heads, merge.order);
  }
  const HeadCovariance covariance = covariance_of_heads(*heads, inputs);
  HeadRotations rotations = no_rotations(*heads);
  if (options.aligned) {
    rotations = align_heads(covariance, options.num_kv_heads);
    rotate_heads(heads, rotations);
  }
  pool_heads(heads, options.num_kv_heads);
  merge.kept_power = kept_power(covariance, rotations, options.num_kv_heads);
  return merge;
}

MergedHeads merge_kv_heads(const Checkpoint& source, const HeadMerge& options,
                           const CalibrationRows* rows, ThreadPool& pool) {
  check_merge(source, options);
  MergedHeads merged{source, std::vector<LayerMerge>(static_cast<size_t>(source.config.num_layers))};
  merged.checkpoint.config.num_kv_heads = options.num_kv_heads;
  if (rows == nullptr) {
    merge_by_weights(source, options, pool, &merged);
  } else {
    merge_by_outputs(source, options, *rows, pool, &merged);
  }
  merged.checkpoint.index_tensors();
  return merged;
}

}  // namespace tandem
