// What processor this is and how much of it this process may use.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tandem {

struct CpuFeatures {
  bool avx2 = false;         // with FMA and F16C
  bool avx512 = false;       // F, BW, DQ, VL
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
  std::string model_name;    // as /proc/cpuinfo names it
};

const CpuFeatures& cpu_features();

// CPUs in this process's affinity mask, in order.
std::vector<int> allowed_cpus();
// The smaller of the affinity mask and the cgroup's CPU quota (v1 or v2), at least 1.
int usable_cpus();
// Bytes of the last-level cache; 0 when the system does not say.
uint64_t last_level_cache_bytes();
// The smaller of free memory and what the cgroup leaves, in bytes.
uint64_t available_memory_bytes();

}  // namespace tandem
