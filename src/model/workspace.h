// The buffers of a step, allocated once.
#pragma once

#include "model/model.h"

namespace tandem {

struct Model::Workspace {
  int64_t max_tokens = 0;
  int64_t max_logits = 0;
  Buffer x;          // [T, C] the residual stream
  Buffer qkv;        // [T, (H + 2G) D]
  Buffer attended;   // [T, H D]
  Buffer gate_up;    // [T, 2F]
  Buffer cos_sin;    // [T, D]
  Buffer inv_freq;   // [D / 2] of the sequence at hand
  Buffer scratch;    // attention's, for each thread
  Buffer last;       // [max_logits, C] rows whose logits are wanted
  Buffer logits;     // [max_logits, V]
  Buffer act_f32;    // [T, max K] activations on their way into a linear, in one of two forms
  Buffer act_codes;  // [T, planes, max K padded]
  Buffer act_scales, act_sums;  // [T, max K padded / 32]
  // A device's only.
  Buffer act_half;              // [T, max K padded] 16-bit activations
  Buffer greedy;                // [max_logits] ids of the largest logits
  Buffer host_logits, host_greedy;  // what the host asked for, pinned
  std::unique_ptr<DeviceStep> step;

  // Activations of T tokens and K channels in these buffers: one at a time is alive.
  Activations activations(ActType type, int64_t T, int64_t K) {
    return {type, T, K, act_f32.as<float>(), act_codes.as<int8_t>(), act_scales.as<float>(),
            act_sums.as<float>(), act_half.as<uint16_t>()};
  }
};

}  // namespace tandem
