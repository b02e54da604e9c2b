// A layer whose attention has been changed -> the o that comes nearest to what the attention gave
// before, over calibration rows, layer by layer.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "compress/calibration_rows.h"
#include "compress/input_statistics.h"
#include "compress/layer_forward.h"
#include "compress/layer_weights.h"
#include "formats/checkpoint.h"

namespace tandem {

// The W that makes sum |old_o a - W b|^2 smallest over tokens, plus damping times the mean of
// gram's diagonal times |W - new_o|^2; a are the old attention's outputs, b the new one's. gram
// [K, K] = sum b b^T, cross [K, K] = sum a b^T. In fp64.
Matrix refit_output(const Matrix& old_o, const Matrix& new_o, const std::vector<float>& gram,
                    const std::vector<float>& cross, double damping);

// The residual stream of all rows, behind changed layers.
class AttentionRefit {
 public:
  // `changed`: the config of the changed layers. All must outlive it.
  AttentionRefit(const Checkpoint& source, const ModelConfig& changed, const CalibrationRows& rows,
                 ThreadPool& pool);

  // The inputs of q, k and v of layer l as the source has it. `before` must live until finish_layer.
  InputStatistics begin_layer(const LayerWeights& before, int64_t layer);
  // The refitted o of the layer changed to `after`; the stream then stands behind it.
  Matrix finish_layer(LayerWeights after);

 private:
  template <typename F>
  void for_pieces(F&& f);

  const ModelConfig& config_;
  ThreadPool& pool_;
  int64_t num_tokens_, num_sequences_;
  LayerForward old_forward_, new_forward_;
  std::vector<float> x_;  // [T, C]
  const LayerWeights* before_ = nullptr;
  int64_t layer_ = 0;
};

}  // namespace tandem
