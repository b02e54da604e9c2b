// NVIDIA's management library, found at run time: what a GPU draws and how it runs.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tandem {

inline constexpr const char* kNvmlLibrary = "libnvidia-ml.so.1";

// Why a GPU's clocks are below their highest, as NVML's event reasons.
enum GpuSlowdown : uint64_t {
  kSoftwarePowerCap = 0x4,
  kHardwareSlowdown = 0x8,
  kSoftwareThermal = 0x20,
  kHardwareThermal = 0x40,
  kPowerBrake = 0x80,
};
inline constexpr uint64_t kInvalidatingSlowdowns =
    kHardwareSlowdown | kSoftwareThermal | kHardwareThermal | kPowerBrake;
// "software power cap", "hardware thermal slowdown" ...; other bits are no slowdowns.
std::vector<std::string> slowdown_names(uint64_t reasons);

// One look at a GPU; absent: this library or GPU does not tell.
struct GpuState {
  std::optional<double> watts;  // instant, not NVML's mean over a second
  int64_t watts_at_us = 0;      // when they were taken; 0: not said
  std::optional<double> sm_mhz, memory_mhz, celsius;
  std::optional<double> busy_percent;  // share of the last sample period in which a kernel ran
  std::optional<uint64_t> slowdowns;
};

// One GPU of the library.
class Nvml {
 public:
  // The GPU at a PCI address as CUDA writes it, "0000:41:00.0". Null with the reason in one line:
  // no library, a function that it lacks, no permission, no such GPU.
  static std::unique_ptr<Nvml> open(const std::string& pci_address, std::string& reason,
                                    const char* library = kNvmlLibrary);
  virtual ~Nvml() = default;

  // Energy of the whole board since the driver was loaded. Nullopt with the reason: no counter, no
  // permission, a GPU in slices, whose energy nobody tells apart.
  virtual std::optional<uint64_t> energy_millijoules(std::string& reason) const = 0;
  virtual GpuState state() const = 0;
  virtual std::optional<double> power_limit_watts() const = 0;
  // Processes with work on the GPU, this one included.
  virtual std::optional<int64_t> processes() const = 0;
  virtual bool is_in_slices() const = 0;  // MIG
  virtual const std::string& driver_version() const = 0;
};

}  // namespace tandem
