// Checkpoint -> Model: weights packed for the kernels of one instruction set, and the forward step.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoint.h"
#include "kernels/device.h"
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

// One kernel's share of a model: `count` matrices of the same shape and encoding.
struct KernelUse {
  std::string_view layers;  // "qkv", "o", "gate_up", "down", "embedding", "output"
  const LinearKernel* kernel = nullptr;
  Encoding encoding;
  int64_t N = 0, K = 0, count = 0;
  uint64_t read_bytes = 0;  // of one
};

// Vectors lie in the model's arena, where the kernels read.
struct Layer {
  const float* attn_norm = nullptr;     // [C]
  LinearGroup qkv;                      // [(H + 2G) D, C]
  const float* qkv_bias = nullptr;      // [(H + 2G) D]; null: none
  const float* q_norm = nullptr;        // [D]; null: none
  const float* k_norm = nullptr;        // [D]; null: none
  LinearGroup o;                        // [C, H D]
  const float* o_bias = nullptr;        // [C]; null: none
  const float* ffn_norm = nullptr;      // [C]
  LinearGroup gate_up;                  // [2F, C]
  const float* gate_up_bias = nullptr;  // [2F]; null: none
  LinearGroup down;                     // [C, F]
  const float* down_bias = nullptr;     // [C]; null: none
  int64_t window = 0;                   // keys a token sees; 0: all
};

class Model {
 public:
  // Packs the weights and releases the checkpoint's mapped pages (ref keeps them: it decodes on the
  // fly). An isa of "cuda" or "cuda:N" is that GPU. The pool must outlive the model. Throws no_device
  // when the table has no row for a weight, no_memory when the weights do not fit. require_sparse:
  // no_device when a 2:4 weight would be multiplied as a dense one, usage when none is 2:4.
  Model(const Checkpoint& checkpoint, ThreadPool& pool, std::string_view isa, bool require_sparse = false);

  const ModelConfig& config() const { return config_; }
  std::string_view isa() const { return isa_; }
  ThreadPool& pool() const { return pool_; }
  // Where weights, activations and cache lie; null: the host's memory.
  Device* device() const { return device_.get(); }
  // Bytes of packed weights resident, and bytes a decode step reads of them.
  uint64_t weight_bytes() const { return weight_bytes_; }
  uint64_t step_read_bytes() const { return step_read_bytes_; }
  // Names of the linear kernels in use, with how many matrices each runs: "linear_q4_1_avx512 x120".
  std::vector<std::string> kernels_in_use() const;
  // The same in full, in the order of a step.
  std::vector<KernelUse> kernel_uses() const;
  KvLayout kv_layout(KvType type) const;

  // Buffers of a step, for at most max_tokens tokens, max_logits rows of logits and max_pages pages
  // of cache. They must not outlive the model.
  struct Workspace;
  struct WorkspaceDeleter {
    void operator()(Workspace*) const;
  };
  using WorkspacePtr = std::unique_ptr<Workspace, WorkspaceDeleter>;
  WorkspacePtr make_workspace(int64_t max_tokens, int64_t max_logits, int64_t max_pages) const;
  static uint64_t workspace_bytes(const Workspace&);

  // One step: appends the batch's tokens to the cache and leaves logits [logit_rows, V] in the
  // workspace. Neither allocates nor branches on what the tokens are. A device may still be at it.
  void forward(const Batch& batch, const KvCache& cache, Workspace& workspace) const;
  // The first num_logits rows of the last step's logits, on the host. Waits for the step.
  const float* logits(Workspace& workspace, int64_t num_logits) const;
  // The id of the largest of each of these rows, the lowest of equals; -1 where a logit is NaN or
  // none is finite. Waits for the step. Only on a device, where it spares the copy of the logits.
  std::span<const int32_t> greedy_tokens(Workspace& workspace, int64_t num_logits) const;
  // Waits for the last step.
  void finish_step() const;

 private:
  void run_step(const Context& context, const Batch& batch, const KvCache& cache, Workspace& workspace) const;
  void begin_step(const Context& context, const Batch& batch, Workspace& workspace) const;
  bool has_outliers() const;  // whether a linear takes activations of int8_outlier
  ModelConfig config_;
  ThreadPool& pool_;
  std::string isa_;
  std::shared_ptr<Device> device_;
  const OpSet* ops_ = nullptr;
  std::shared_ptr<const Checkpoint> source_;  // ref only: keeps the mapping alive
  Arena arena_;                               // holds the packed weights
  LinearGroup embedding_;                     // [V, C]
  LinearGroup lm_head_;                       // [V, C]; empty when tied
  const float* final_norm_ = nullptr;
  Rope rope_;
  const float* inv_freq_ = nullptr;  // [D / 2], a device's
  std::vector<Layer> layers_;
  uint64_t weight_bytes_ = 0;
  uint64_t step_read_bytes_ = 0;
};

}  // namespace tandem
