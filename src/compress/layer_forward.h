// A decoder layer in float over calibration rows, in the pieces between which its linears are
// compressed. The ops are the kernels of the fastest instruction set that runs here; the linears are
// plain products of the floats at hand.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "compress/layer_weights.h"
#include "kernels/multiply.h"
#include "kernels/ops.h"
#include "model/rope.h"
#include "tensor/buffer.h"

namespace tandem {

// Where the linears and activations of the pieces lie is the implementation's: the host or a device.
class Forward {
 public:
  virtual ~Forward() = default;
  virtual int64_t max_tokens() const = 0;
  // Before a set's linears run: `weights` of it, as they are now.
  virtual void place(const LayerWeights& weights, LinearSet set) = 0;
  // All take T = whole sequences, at most max_tokens().
  // out [T, C] = rms_norm(x) * weight.
  virtual void norm(const float* x, int64_t T, const std::vector<float>& weight,
                    float* out) const = 0;
  // attended [T, H D] of h [T, C], the normed stream, with the q, k and v of `weights`.
  virtual void attention(const LayerWeights& weights, int64_t layer, const float* h, int64_t T,
                         float* attended) = 0;
  // activated [T, F] = silu(gate(h)) * up(h).
  virtual void gate_up(const LayerWeights& weights, const float* h, int64_t T,
                       float* activated) = 0;
  // out [T, N] += linear(x) with its bias; x [T, K].
  virtual void add_linear(const LinearWork& linear, const float* x, int64_t T,
                          float* out) const = 0;
};

// On the host.
class LayerForward final : public Forward {
 public:
  // Runs up to max_sequences sequences of `length` tokens at a time. The pool must outlive it.
  LayerForward(const ModelConfig& config, int64_t length, int64_t max_sequences, ThreadPool& pool);

  int64_t max_tokens() const override { return length_ * max_sequences_; }
  uint64_t buffer_bytes() const;

  void place(const LayerWeights&, LinearSet) override {}
  void norm(const float* x, int64_t T, const std::vector<float>& weight,
            float* out) const override;
  void attention(const LayerWeights& weights, int64_t layer, const float* h, int64_t T,
                 float* attended) override;
  void gate_up(const LayerWeights& weights, const float* h, int64_t T, float* activated) override;
  void add_linear(const LinearWork& linear, const float* x, int64_t T, float* out) const override;

 private:
  // y[T, ldy] from `column` on = x . W^T.
  void multiply_into(const LinearWork& linear, const float* x, int64_t T, float* y, int64_t ldy,
                     int64_t column) const;

  const ModelConfig& config_;
  int64_t length_, max_sequences_;
  ThreadPool& pool_;
  const OpSet& ops_;
  Multiply multiply_;
  Rope rope_;
  Context context_;
  KvLayout layout_;
  Batch batch_;  // of max_sequences
  std::vector<int32_t> positions_, pages_;
  Buffer wide_;     // [T, (H + 2G) D] or [T, 2F]
  Buffer cos_sin_;  // [T, D]
  Buffer cache_, scratch_;
};

}  // namespace tandem
