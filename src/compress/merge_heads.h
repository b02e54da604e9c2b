// A model with fewer KV heads: MHA or GQA -> GQA, without training (arXiv 2305.13245, 2412.20677).
// What this costs must be measured: no quality is kept by itself.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "compress/attention_heads.h"
#include "compress/calibration_rows.h"
#include "compress/input_statistics.h"
#include "formats/checkpoint.h"

namespace tandem {

struct HeadMerge {
  int64_t num_kv_heads = 0;
  // Group heads by similarity and turn them towards one another before they become their mean;
  // false: neighbouring heads, as they are.
  bool aligned = false;
  uint64_t seed = 0;  // of the search for groups
};

struct LayerMerge {
  std::vector<int64_t> order;  // heads of before; each run of G / num_kv_heads became one head
  double kept_power = 0;       // share of keys' and values' power in the means: kept_power()
};

struct MergedHeads {
  Checkpoint checkpoint;           // attention's matrices in f32 in memory, all else as in the source
  std::vector<LayerMerge> layers;  // [L]
};

// One layer's heads become groups' means. `inputs`, of q, k and v, tell which heads are alike; null:
// their weights alone do.
LayerMerge merge_layer(AttentionHeads* heads, const HeadMerge& options,
                       const InputStatistics* inputs);

// With calibration rows heads are compared by what they make of these, layer by layer behind the
// merged ones, and each layer's o is refitted in closed form: least squares of the outputs that the
// unmerged attention gives for the same inputs. `rows` may be null.
//
// Throws usage when num_kv_heads is no divisor of the source's KV heads or is all of them, when
// the source is compressed, and when heads are to be turned that norms of q and k hold in place;
// bad_file naming a tensor that holds NaN or infinity.
MergedHeads merge_kv_heads(const Checkpoint& source, const HeadMerge& options,
                           const CalibrationRows* rows, ThreadPool& pool);

}  // namespace tandem
