// Checkpoint -> Model: weights packed for the kernels of one instruction set, and the forward step.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoint.h"
#include "kernels/table.h"
#include "model/footprint.h"
#include "model/rope.h"

namespace tandem {

// One matrix of a layer as one or more packed parts whose outputs lie side by side (q|k|v, gate|up).
struct LinearGroup {
  std::vector<PackedWeight> parts;  // parts of one encoding are packed as one
  int64_t N = 0;
  ActType act_type() const { return parts.front().kernel->act_type; }
};

struct Layer {
  std::vector<float> attn_norm;  // [C]
  LinearGroup qkv;               // [(H + 2G) D, C]
  std::vector<float> qkv_bias;   // [(H + 2G) D]; empty: none
  std::vector<float> q_norm;     // [D]; empty: none
  std::vector<float> k_norm;     // [D]; empty: none
  LinearGroup o;                 // [C, H D]
  std::vector<float> o_bias;     // [C]; empty: none
  std::vector<float> ffn_norm;   // [C]
  LinearGroup gate_up;           // [2F, C]
  std::vector<float> gate_up_bias;  // [2F]; empty: none
  LinearGroup down;              // [C, F]
  std::vector<float> down_bias;  // [C]; empty: none
  int64_t window = 0;            // keys a token sees; 0: all
};

class Model {
 public:
  // Packs the weights and releases the checkpoint's mapped pages (ref keeps them: it decodes on the
  // fly). The pool must outlive the model. Throws no_device when the table has no row for a weight,
  // no_memory when the weights do not fit.
  Model(const Checkpoint& checkpoint, ThreadPool& pool, std::string_view isa);

  const ModelConfig& config() const { return config_; }
  std::string_view isa() const { return isa_; }
  ThreadPool& pool() const { return pool_; }
  // Bytes of packed weights resident, and bytes a decode step reads of them.
  uint64_t weight_bytes() const { return weight_bytes_; }
  uint64_t step_read_bytes() const { return step_read_bytes_; }
  // Names of the linear kernels in use, with how many matrices each runs: "linear_q4_1_avx512 x120".
  std::vector<std::string> kernels_in_use() const;
  KvLayout kv_layout(KvType type) const;

  // Buffers of a step, for at most max_tokens tokens and max_logits rows of logits.
  struct Workspace;
  struct WorkspaceDeleter {
    void operator()(Workspace*) const;
  };
  using WorkspacePtr = std::unique_ptr<Workspace, WorkspaceDeleter>;
  WorkspacePtr make_workspace(int64_t max_tokens, int64_t max_logits) const;
  static uint64_t workspace_bytes(const Workspace&);

  // One step: appends the batch's tokens to the cache and gives logits [logit_rows, V] in the
  // workspace. Neither allocates nor branches on what the tokens are.
  const float* forward(const Batch& batch, const KvCache& cache, Workspace& workspace) const;

 private:
  ModelConfig config_;
  ThreadPool& pool_;
  std::string isa_;
  const OpSet* ops_ = nullptr;
  std::shared_ptr<const Checkpoint> source_;  // ref only: keeps the mapping alive
  Arena arena_;                               // holds the packed weights
  LinearGroup embedding_;                     // [V, C]
  LinearGroup lm_head_;                       // [V, C]; empty when tied
  std::vector<float> final_norm_;
  Rope rope_;
  std::vector<Layer> layers_;
  uint64_t weight_bytes_ = 0;
  uint64_t step_read_bytes_ = 0;
};

}  // namespace tandem
