// A processor with memory of its own: allocation, copies, and steps that are recorded once and
// replayed.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "kernels/ops.h"
#include "tensor/buffer.h"
#include "tensor/random_rows.h"

namespace tandem {

// The largest step a DeviceStep takes.
struct StepLimits {
  int64_t max_tokens = 0;
  int64_t max_logits = 0;
  int64_t max_pages = 0;  // of all sequences of a step together
};

// A step's batch where the kernels read it: tokens, positions, page tables and the list of
// attention work, at addresses that never change, so that a recorded step reads the next one's
// batch.
class DeviceStep {
 public:
  virtual ~DeviceStep() = default;
  // Copies the batch; the host may change it at once. H query heads share the cache's kv heads.
  virtual void stage(const Batch& batch, const KvCache& cache, int64_t H) = 0;
  virtual const int32_t* tokens() const = 0;  // [T], in the device's memory
  virtual uint64_t size_bytes() const = 0;
};

// What a device is. Found without starting work on it, which would raise its idle power.
struct DeviceFacts {
  std::string name;         // "cuda:0"
  std::string model;        // "NVIDIA H200"
  std::string capability;   // "9.0"
  std::string pci_address;  // "0000:41:00.0"
  std::string driver_cuda;  // newest CUDA that the driver runs, "13.0"
  uint64_t memory_bytes = 0;
  uint64_t cache_bytes = 0;  // L2
  int multiprocessors = 0;
  std::string generation;  // "sm_90a": whose kernels run
  bool is_capped = false;  // an older generation's than the device's own, as was asked for

  std::string description() const {
    return model + ", compute capability " + capability +
           (is_capped ? ", capped to " + generation : "");
  }
};

// What a device reaches when nothing but one limit is exercised.
struct DeviceLimits {
  struct Gemm {
    std::string type;  // of both factors
    int64_t size = 0;  // M = N = K
    double operations_per_second = 0;
  };
  uint64_t stream_bytes = 0;         // read, or half of it copied onto the other half
  double read_bytes_per_second = 0;  // best of 5
  double copy_bytes_per_second = 0;  // read and written bytes together
  double launch_seconds = 0;         // one empty kernel after another within a CUDA graph
  std::vector<Gemm> gemms;           // sustained; by the library for large products, none without
};

class Device : public DeviceMemory {
 public:
  virtual const std::string& name() const = 0;         // "cuda:0"
  virtual const std::string& description() const = 0;  // "NVIDIA H200, compute capability 9.0"
  virtual uint64_t free_bytes() const = 0;
  // The library for large products, "cuBLASLt 13.0.2"; empty: none was found, own kernels run.
  virtual std::string gemm_library() const = 0;
  // A few seconds of work.
  virtual DeviceLimits measure_limits() = 0;

  // Both return when the copy is done; download first waits for the work under way.
  virtual void upload(void* to, const void* from, size_t size_bytes) = 0;
  virtual void download(void* to, const void* from, size_t size_bytes) = 0;
  virtual void synchronize() = 0;
  // Rows 0 ... N - 1 as make_random_row makes them, at addresses in the device's memory. Returns when
  // they are made.
  virtual void random_rows(const RandomRows& rows, int64_t N, std::byte* data,
                           std::byte* scales) = 0;
  // Pinned host memory, as download is fastest into.
  virtual DeviceMemory& pinned_memory() = 0;

  virtual std::unique_ptr<DeviceStep> make_step(const StepLimits& limits, int64_t H,
                                                const KvLayout& layout) = 0;
  // Runs `launch`, which only launches kernels over the staged batch. When the step is a decode
  // step, the launches are recorded the first time and replayed when a step of the same shape comes
  // again.
  virtual void run(DeviceStep& step, const std::function<void()>& launch) = 0;
  // Of its rows in the kernel table: "cuda", or an older generation's "sm_80".
  virtual std::string_view isa() const = 0;
};

// "cuda" or "cuda:N", either with "@sm_80" behind it to run that older generation's kernels on a
// newer device. Throws usage when the name is none of these, no_device with the reason when it cannot
// be used.
std::shared_ptr<Device> open_device(std::string_view name);
// The same without starting work on it: throws as open_device does.
DeviceFacts describe_device(std::string_view name);
// Whether the name is of this form.
bool names_device(std::string_view name);

}  // namespace tandem
