#include "base/cpu.h"

#include <cpuid.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>

namespace tandem {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

uint64_t read_xcr0() {
  uint32_t eax = 0, edx = 0;
  __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  return static_cast<uint64_t>(edx) << 32 | eax;
}

CpuFeatures detect() {
  CpuFeatures features;
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d)) {
    const bool osxsave = c & (1u << 27);
    const bool fma = c & (1u << 12);
    const bool f16c = c & (1u << 29);
    // The system must save the wide registers: bits 1-2 of XCR0 for ymm, 5-7 for zmm.
    const uint64_t xcr0 = osxsave ? read_xcr0() : 0;
    const bool ymm = (xcr0 & 0x6) == 0x6;
    const bool zmm = (xcr0 & 0xE6) == 0xE6;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
      features.avx2 = ymm && fma && f16c && (b & (1u << 5));
      features.avx512 = zmm && features.avx2 && (b & (1u << 16)) && (b & (1u << 17)) &&
                        (b & (1u << 30)) && (b & (1u << 31));
      features.avx512_vnni = features.avx512 && (c & (1u << 11));
    }
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) {
      features.avx512_bf16 = features.avx512 && (a & (1u << 5));
    }
  }
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.rfind("model name", 0) == 0) {
      const size_t colon = line.find(':');
      if (colon != std::string::npos && colon + 2 <= line.size()) features.model_name = line.substr(colon + 2);
      break;
    }
  }
  return features;
}

// CPUs the cgroup's quota allows; infinity when there is no quota.
double cgroup_cpu_quota() {
  double quota = std::numeric_limits<double>::infinity();
  std::istringstream v2(first_line("/sys/fs/cgroup/cpu.max"));
  std::string limit;
  double period = 0;
  if (v2 >> limit >> period && limit != "max" && period > 0) quota = std::stod(limit) / period;
  const std::string v1 = first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  const std::string v1_period = first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (!v1.empty() && !v1_period.empty() && v1[0] != '-' && std::stod(v1_period) > 0) {
    quota = std::min(quota, std::stod(v1) / std::stod(v1_period));
  }
  return quota;
}

uint64_t parse_size(const std::string& text) {
  std::istringstream stream(text);
  uint64_t value = 0;
  char unit = 0;
  stream >> value >> unit;
  if (unit == 'K') value <<= 10;
  if (unit == 'M') value <<= 20;
  return value;
}

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    }
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

int usable_cpus() {
  const double quota = cgroup_cpu_quota();
  const int allowed = static_cast<int>(allowed_cpus().size());
  if (!std::isfinite(quota)) return allowed;
  return std::clamp(static_cast<int>(quota + 0.5), 1, allowed);
}

uint64_t last_level_cache_bytes() {
  uint64_t largest = 0;
  for (int index = 0; index < 8; ++index) {
    const std::string base = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    if (first_line(base + "type") == "Instruction") continue;
    largest = std::max(largest, parse_size(first_line(base + "size")));
  }
  return largest;
}

uint64_t available_memory_bytes() {
  uint64_t available = std::numeric_limits<uint64_t>::max();
  std::ifstream meminfo("/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);) {
    if (line.rfind("MemAvailable:", 0) == 0) {
      available = std::stoull(line.substr(13)) * 1024;
    }
  }
  const std::string limit = first_line("/sys/fs/cgroup/memory.max");
  const std::string used = first_line("/sys/fs/cgroup/memory.current");
  if (!limit.empty() && limit != "max" && !used.empty()) {
    const uint64_t total = std::stoull(limit), current = std::stoull(used);
    available = std::min(available, total > current ? total - current : 0);
  }
  return available;
}

}  // namespace tandem
