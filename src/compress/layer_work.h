// What a step of a recipe is given to work on.
#pragma once

#include <array>
#include <cstdint>

#include "base/thread_pool.h"
#include "compress/input_statistics.h"
#include "compress/layer_weights.h"
#include "formats/model_config.h"

namespace tandem {

// Runs parts of the layer at hand over a few whole calibration rows (at most
// kMaxSearchTokens tokens), for steps that judge a change by what comes out. Inputs are the residual
// stream as the compressed layers before left it.
class LayerSearch {
 public:
  static constexpr int64_t kMaxSearchTokens = 8192;
  static constexpr int64_t kMaxRoughTokens = 2048;

  virtual ~LayerSearch() = default;
  virtual int64_t num_tokens() const = 0;  // all there are
  // Enough to tell good changes from bad ones: the first rows of at most kMaxRoughTokens tokens,
  // one at least.
  virtual int64_t num_rough_tokens() const = 0;
  // Of the first T tokens, one of the two numbers above.
  // [T, C]: o(attention(qkv(norm(x)))), without the residual, of these weights.
  virtual Matrix attention_output(const LayerWeights& weights, int64_t T) const = 0;
  // [T, C]: down(silu(gate) * up) of norm(x), without the residual. x is the stream after the
  // attention of the weights that the layer came with.
  virtual Matrix mlp_output(const LayerWeights& weights, int64_t T) const = 0;
};

// A layer before any of its sets is compressed.
struct LayerWork {
  const ModelConfig& config;
  int64_t layer = 0;
  LayerWeights& weights;
  // Of the four sets, with these weights; a step that changes them calls scale_inputs.
  std::array<InputStatistics, kNumSets>& inputs;
  const LayerSearch* search = nullptr;  // null: no step asked for it
  ThreadPool& pool;

  InputStatistics& inputs_of(LinearSet set) { return inputs[static_cast<size_t>(set)]; }
};

// A set at its turn. Sets before it have their results, and `inputs` is what these make of the
// calibration rows.
struct SetWork {
  const ModelConfig& config;
  int64_t layer = 0;
  LinearSet set = LinearSet::qkv;
  LayerWeights& weights;
  InputStatistics& inputs;
  ThreadPool& pool;
  FloatWork* device = nullptr;  // for steps that can use one
};

}  // namespace tandem
