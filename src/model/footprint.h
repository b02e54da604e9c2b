// Bytes and operations of a model, from its config and weights alone: one arithmetic that the page
// budget, the study's share of the limit and `inspect` all read.
#pragma once

#include <cstdint>

#include "formats/checkpoint.h"
#include "kernels/ops.h"

namespace tandem {

struct Footprint {
  uint64_t weight_bytes = 0;       // all weights as stored
  uint64_t resident_bytes = 0;     // the same as the CPU kernels keep them: some in wider codes
  uint64_t step_read_bytes = 0;    // weights that a decode step reads (embedding rows left out unless tied)
  uint64_t linear_macs_per_token = 0;   // multiply-adds of the layers' linears for one token
  uint64_t lm_head_macs_per_token = 0;
};

Footprint footprint(const Checkpoint& checkpoint);

// Bytes of KV cache for `tokens` tokens of one sequence, whole pages.
uint64_t kv_bytes(const ModelConfig& config, KvType type, int64_t tokens);

// Multiply-adds of attention for one new token at context S: q.k and p.v.
uint64_t attention_macs(const ModelConfig& config, int64_t S);

}  // namespace tandem
