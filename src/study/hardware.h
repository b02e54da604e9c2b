// A machine -> its sheet: what it is, and what it reaches when nothing but one limit is exercised.
// A Record's numbers are read against these ceilings.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/thread_pool.h"

namespace tandem {

// Reading `bytes` again and again with all threads.
struct ReadBandwidth {
  uint64_t bytes = 0;
  double bytes_per_second = 0;
};

// 10^9 operations a second; a multiply-add counts as two.
struct ComputePeak {
  int threads = 0;
  double int8_gops = 0;
  double f32_gflops = 0;
};

struct HardwareSheet {
  // facts
  std::string cpu;
  std::vector<std::string> features;  // "avx2", "avx512", "avx512_vnni", "avx512_bf16"
  int usable_cpus = 0;
  int allowed_cpus = 0;  // without the cgroup's quota
  uint64_t available_memory_bytes = 0;
  uint64_t last_level_cache_bytes = 0;
  // measured; what runs is named, because a peak holds for one instruction
  int threads = 0;
  std::string int8_instruction, f32_instruction;
  std::vector<ReadBandwidth> bandwidth;
  std::vector<ComputePeak> peaks;  // one thread, then all threads if there are more
};

// The facts alone: nothing is measured. Called before a ThreadPool pins this thread, which would
// otherwise look like all that the process may use.
HardwareSheet describe_hardware();

// The facts, completed by measuring for about two seconds: bandwidth at model_bytes and at four
// times the last-level cache, each the best of many sweeps. A size above half the memory available
// is left out. `progress`, if given, hears what is measured next. Throws no_device without AVX2.
HardwareSheet measure_hardware(HardwareSheet facts, ThreadPool& pool, uint64_t model_bytes,
                               const std::function<void(const std::string&)>& progress = {});

}  // namespace tandem
