// The angles of RoPE: one inverse frequency for each plane, for every kind of scaling.
#pragma once

#include <cstdint>
#include <vector>

#include "formats/model_config.h"
#include "kernels/ops.h"

namespace tandem {

class Rope {
 public:
  explicit Rope(const ModelConfig& config);

  // What a device needs to do the same; above is 0 where RoPE is not dynamic.
  DynamicRope dynamic() const { return {theta_, factor_, dynamic_above_}; }
  int64_t half() const { return static_cast<int64_t>(inv_freq_.size()); }  // D / 2
  // [D / 2] for a sequence of `length` tokens. Only dynamic scaling depends on the length: it fills
  // `scratch`, [D / 2], once a sequence is longer than the original context. As in transformers, a
  // key keeps the angles of the step that cached it, so a prompt is rotated by its whole length and
  // each later token by the length it makes.
  const float* inverse_frequencies(int64_t length, float* scratch) const;

 private:
  double theta_;
  double factor_;
  int64_t dynamic_above_;  // tokens; 0: not dynamic
  std::vector<float> inv_freq_;
};

// cos_sin [T, D]: cosines and sines of the step's positions, on the host. Angles are fp32 products, as
// the models were trained with. scratch [D / 2].
void fill_cos_sin(const Context& context, const Batch& batch, const Rope& rope, float* scratch,
                  float* cos_sin);

}  // namespace tandem
