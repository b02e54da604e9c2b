// The device behind `--device cuda`: one GPU, one stream, what its kernels share.
#pragma once

#include <cuda_runtime_api.h>

#include <map>

#include "kernels/cuda/check.h"
#include "kernels/device.h"

namespace tandem {

class Cublas;
class CudaDevice;

// Attention work for one block of threads and one kv head: a token against a run of its pages, or a
// tile of a prompt's tokens against all that they see.
struct AttentionItem {
  int32_t first_token;  // row of the step's arrays
  int32_t num_tokens;   // 0: nothing to do
  int32_t position;     // of the first token
  int32_t pages;        // index of the sequence's page table in the step's pages
  int32_t page_begin;   // pages of the sequence to attend to
  int32_t page_end;
  // Of single tokens only. A context is cut into parts, each of which has a partial result; an item
  // is a run of them.
  int32_t part_pages;  // pages of a part; the context's last may have fewer
  int32_t part;        // the item's first
  int32_t num_parts;   // of the context; 1: no partial results
  int32_t slots;       // where the first part's partial result goes, the others behind it
  int32_t num_items;   // that share the query
};

// The step's arrays as kernels get them.
struct StepView {
  const int32_t* tokens = nullptr;       // [T]
  const int32_t* positions = nullptr;    // [T]
  const int32_t* page_tables = nullptr;  // [T] index of the token's page table in `pages`
  const int32_t* logit_rows = nullptr;   // [num_logits]
  const AttentionItem* items = nullptr;  // [num_items] single tokens; empty ones come last
  const AttentionItem* tiles = nullptr;  // [num_tiles] of prompts
  const int32_t* pages = nullptr;
  int32_t num_items = 0, num_tiles = 0;
  float* partials = nullptr;     // [slots, H, D + kRowPadding]: unnormalized output, maximum, sum
  uint32_t* counters = nullptr;  // [slots, G], zero between steps
  const int32_t* lengths = nullptr;  // [T] of the token's sequence, as far as it is known
};

class CudaStep final : public DeviceStep {
 public:
  CudaStep(CudaDevice& device, const StepLimits& limits, int64_t H, const KvLayout& layout);
  ~CudaStep() override;
  void stage(const Batch& batch, const KvCache& cache, int64_t H) override;
  const int32_t* tokens() const override { return view_.tokens; }
  uint64_t size_bytes() const override;
  const StepView& view() const { return view_; }
  // Runs or replays the launches of a step, see Device::run.
  void run(const std::function<void()>& launch);

 private:
  struct Shape {
    int64_t T = 0, num_logits = 0, num_items = 0;
    const std::byte* cache = nullptr;
    auto operator<=>(const Shape&) const = default;
  };
  struct Recorded {
    cudaGraphExec_t graph = nullptr;
    int uses = 0;
  };
  void add_items(const SequenceSlice& slice, int64_t pages, int64_t parts_each,
                 const KvLayout& layout);
  void add_tiles(const SequenceSlice& slice, int64_t pages, int64_t H, const KvLayout& layout);

  cudaStream_t stream_;
  StepLimits limits_;
  std::vector<AttentionItem> items_, tiles_;
  int64_t num_slots_ = 0;
  Buffer host_, device_, partials_, counters_;
  cudaEvent_t copied_ = nullptr;
  StepView view_;
  Shape shape_;
  bool decodes_ = false;   // every sequence has one token
  int64_t decode_blocks_;  // of decode attention, that run at once
  std::map<Shape, Recorded> recorded_;
};

class CudaDevice final : public Device {
 public:
  CudaDevice(int index, std::string_view cap);
  ~CudaDevice() override;

  std::byte* allocate(size_t size_bytes) override;
  void release(std::byte* data) noexcept override;
  const std::string& name() const override { return name_; }
  const std::string& description() const override { return description_; }
  uint64_t free_bytes() const override;
  std::string gemm_library() const override;
  DeviceLimits measure_limits() override;
  void upload(void* to, const void* from, size_t size_bytes) override;
  void download(void* to, const void* from, size_t size_bytes) override;
  void synchronize() override;
  void random_rows(const RandomRows& rows, int64_t N, std::byte* data, std::byte* scales) override;
  DeviceMemory& pinned_memory() override { return pinned_; }
  std::unique_ptr<DeviceStep> make_step(const StepLimits& limits, int64_t H,
                                        const KvLayout& layout) override;
  void run(DeviceStep& step, const std::function<void()>& launch) override;
  std::string_view isa() const override { return isa_; }

  cudaStream_t stream() const { return stream_; }
  int multiprocessors() const { return multiprocessors_; }
  // At least size_bytes that stay valid until the next call: canonical bytes on their way into a
  // layout.
  std::byte* scratch(size_t size_bytes);
  // What large products work in: whole for one op at a time.
  std::byte* workspace() { return workspace_.data(); }
  static constexpr size_t kWorkspaceBytes = size_t{192} << 20;
  // Null when the library is not found, and where an older generation's kernels run.
  Cublas* cublas() const { return cublas_.get(); }

 private:
  class Pinned final : public DeviceMemory {
   public:
    std::byte* allocate(size_t size_bytes) override;
    void release(std::byte* data) noexcept override;
  };
  std::string name_, description_;
  int multiprocessors_ = 0;
  cudaStream_t stream_ = nullptr;
  Pinned pinned_;
  Buffer scratch_, workspace_;
  std::shared_ptr<Cublas> cublas_;
  std::string_view isa_;
};

inline CudaDevice& cuda_device(const Context& context) {
  return static_cast<CudaDevice&>(*context.device);
}
inline cudaStream_t cuda_stream(const Context& context) { return cuda_device(context).stream(); }
inline const StepView& step_view(const Context& context) {
  return static_cast<const CudaStep&>(*context.step).view();
}

}  // namespace tandem
