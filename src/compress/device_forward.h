// The twin of layer_forward.h on a device: weights are copied there a set at a time, activations
// stay there.
#pragma once

#include "compress/layer_forward.h"
#include "kernels/float_work.h"

namespace tandem {

class DeviceForward final : public Forward {
 public:
  // Runs up to max_sequences sequences of `length` tokens at a time. `work` must outlive it. Throws
  // no_memory.
  DeviceForward(const ModelConfig& config, int64_t length, int64_t max_sequences, ThreadPool& pool,
                FloatWork& work);

  int64_t max_tokens() const override { return length_ * max_sequences_; }
  void place(const LayerWeights& weights, LinearSet set) override;
  void norm(const float* x, int64_t T, const std::vector<float>& weight,
            float* out) const override;
  void attention(const LayerWeights& weights, int64_t layer, const float* h, int64_t T,
                 float* attended) override;
  void gate_up(const LayerWeights& weights, const float* h, int64_t T, float* activated) override;
  void add_linear(const LinearWork& linear, const float* x, int64_t T, float* out) const override;

  // What one for these holds, in bytes.
  static uint64_t device_bytes(const ModelConfig& config, int64_t length, int64_t max_sequences);

 private:
  // y [T, N] of the placed linears, stacked; N in all.
  void multiply(const float* x, int64_t T, int64_t N, int64_t K, bool accumulates, float* y) const;
  // A copy of `values` behind the vectors placed so far.
  const float* place_vector(const std::vector<float>& values);

  const ModelConfig& config_;
  int64_t length_, max_sequences_;
  FloatWork& work_;
  const OpSet& ops_;
  Context context_;
  Buffer weights_;          // [N, K] of the set at hand
  Buffer vectors_;          // its biases, and q_norm and k_norm
  mutable Buffer norm_;     // [C]
  Buffer wide_;             // [T, (H + 2G) D] or [T, 2F]
  Buffer cos_sin_;          // [length, D]
  Buffer scores_;           // [G, length, length]
  int64_t num_vector_floats_ = 0;
  const float* bias_ = nullptr;  // of the set; null: none
  HeadTransform transform_;
};

}  // namespace tandem
