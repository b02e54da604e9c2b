// The two kernels behind the attention op: single tokens, and the tiles of prompts.
#pragma once

#include "kernels/ops.h"

namespace tandem {

// Query rows (tokens x query heads of a kv head) of one tile of a prompt.
inline constexpr int64_t kPromptTileRows = 128;
inline constexpr int64_t kMaxHeadsPerKvHead = 16;
// Blocks of decode attention on a multiprocessor, for which the work is cut.
inline constexpr int kDecodeBlocks = 2;
// Floats behind a row of partial output: its maximum, its sum, and two that align the next row.
inline constexpr int kRowPadding = 4;

// What attention needs to rotate and append the step's tokens itself; of a step that has items
// only.
struct Appending {
  HeadTransform transform;
  const float* cos_sin = nullptr;  // [T, D]; null: rope_append has been there
};

// Where attention's output [T, H D] goes.
struct Attended {
  float* f32 = nullptr;
  uint16_t* half = nullptr;  // where f32 is null: f16 or bf16
  bool is_bf16 = false;
};

// The step's items, which are single tokens. qkv [T, (H + 2G) D].
void cuda_decode_attention(const Context&, const float* qkv, const Appending& appending, int64_t H,
                           const KvCache& cache, int64_t layer, const Attended& out);
// The step's tiles.
void cuda_prefill_attention(const Context&, const float* qkv, int64_t H, const KvCache& cache,
                            int64_t layer, float* out);

}  // namespace tandem
