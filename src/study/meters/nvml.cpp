#include "study/meters/nvml.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <type_traits>

namespace tandem {
namespace {

// The few declarations of nvml.h that are needed; its ABI does not change within libnvidia-ml.so.1.
using Status = int;
constexpr Status kSuccess = 0, kInsufficientSize = 7;
using Gpu = void*;
constexpr unsigned kPowerInstant = 186;  // NVML_FI_DEV_POWER_INSTANT, milliwatts
constexpr unsigned kClockSm = 1, kClockMemory = 2, kTemperatureGpu = 0;

struct FieldValue {
  unsigned field, scope;
  long long timestamp_us, latency_us;
  int type;  // 1: unsigned int
  Status status;
  union {
    double f64;
    unsigned u32;
    unsigned long long u64;
  } value;
};
static_assert(sizeof(FieldValue) == 40);

struct Utilization {
  unsigned gpu, memory;
};

struct Functions {
  Status (*init)() = nullptr;
  Status (*shutdown)() = nullptr;
  const char* (*error_string)(Status) = nullptr;
  Status (*driver_version)(char*, unsigned) = nullptr;
  Status (*find)(const char*, Gpu*) = nullptr;
  // Absent in some versions: then what they tell is absent.
  Status (*energy)(Gpu, unsigned long long*) = nullptr;
  Status (*fields)(Gpu, int, FieldValue*) = nullptr;
  Status (*clock)(Gpu, unsigned, unsigned*) = nullptr;
  Status (*temperature)(Gpu, unsigned, unsigned*) = nullptr;
  Status (*utilization)(Gpu, Utilization*) = nullptr;
  Status (*slowdowns)(Gpu, unsigned long long*) = nullptr;
  Status (*power_limit)(Gpu, unsigned*) = nullptr;
  Status (*mig_mode)(Gpu, unsigned*, unsigned*) = nullptr;
  Status (*processes)(Gpu, unsigned*, void*) = nullptr;

  // The name of the first function that must be there and is not; null: all are.
  const char* load(void* library) {
    const auto find_one = [&](auto& function, const char* name) {
      function =
          reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      return function != nullptr;
    };
    find_one(energy, "nvmlDeviceGetTotalEnergyConsumption");
    find_one(fields, "nvmlDeviceGetFieldValues");
    find_one(clock, "nvmlDeviceGetClockInfo");
    find_one(temperature, "nvmlDeviceGetTemperature");
    find_one(utilization, "nvmlDeviceGetUtilizationRates");
    if (!find_one(slowdowns, "nvmlDeviceGetCurrentClocksEventReasons")) {
      find_one(slowdowns, "nvmlDeviceGetCurrentClocksThrottleReasons");  // before driver 535
    }
    find_one(power_limit, "nvmlDeviceGetEnforcedPowerLimit");
    find_one(mig_mode, "nvmlDeviceGetMigMode");
    find_one(processes, "nvmlDeviceGetComputeRunningProcesses_v3");
    const auto missing = [&](auto& function, const char* name) {
      return find_one(function, name) ? nullptr : name;
    };
    const char* name = nullptr;
    if ((name = missing(init, "nvmlInit_v2")) != nullptr) return name;
    if ((name = missing(shutdown, "nvmlShutdown")) != nullptr) return name;
    if ((name = missing(error_string, "nvmlErrorString")) != nullptr) return name;
    if ((name = missing(driver_version, "nvmlSystemGetDriverVersion")) != nullptr) return name;
    return missing(find, "nvmlDeviceGetHandleByPciBusId_v2");
  }
};

class LoadedNvml final : public Nvml {
 public:
  LoadedNvml(void* library, const Functions& functions) : library_(library), call_(functions) {}
  ~LoadedNvml() override {
    if (is_initialized_) call_.shutdown();
    dlclose(library_);
  }

  // Empty, or why the GPU cannot be asked.
  std::string begin(const std::string& pci_address) {
    if (const Status status = call_.init(); status != kSuccess)
      return failed("nvmlInit_v2", status);
    is_initialized_ = true;
    char version[96] = "";
    if (call_.driver_version(version, sizeof version) == kSuccess) driver_version_ = version;
    if (const Status status = call_.find(pci_address.c_str(), &gpu_); status != kSuccess) {
      return failed("the GPU at " + pci_address, status);
    }
    unsigned pending = 0, mode = 0;
    in_slices_ =
        call_.mig_mode != nullptr && call_.mig_mode(gpu_, &mode, &pending) == kSuccess && mode != 0;
    return "";
  }

  std::optional<uint64_t> energy_millijoules(std::string& reason) const override {
    constexpr const char* kName = "nvmlDeviceGetTotalEnergyConsumption";
    unsigned long long value = 0;
    Status status = kSuccess;
    if (call_.energy == nullptr) {
      reason = fmt::format("NVML: the library has no {}; a newer driver's has", kName);
    } else if (in_slices_) {
      reason = "NVML: the GPU is in slices (MIG), and the counter is of the whole board";
    } else if ((status = call_.energy(gpu_, &value)) != kSuccess) {
      reason = failed(kName, status);
    } else {
      return value;
    }
    return std::nullopt;
  }
  GpuState state() const override {
    GpuState state;
    FieldValue power{};
    power.field = kPowerInstant;
    if (call_.fields != nullptr && call_.fields(gpu_, 1, &power) == kSuccess &&
        power.status == kSuccess && power.type == 1) {
      state.watts = 1e-3 * power.value.u32;
      state.watts_at_us = power.timestamp_us;
    }
    state.sm_mhz = number(call_.clock, kClockSm);
    state.memory_mhz = number(call_.clock, kClockMemory);
    state.celsius = number(call_.temperature, kTemperatureGpu);
    Utilization busy{};
    if (call_.utilization != nullptr && call_.utilization(gpu_, &busy) == kSuccess) {
      state.busy_percent = busy.gpu;
    }
    unsigned long long reasons = 0;
    if (call_.slowdowns != nullptr && call_.slowdowns(gpu_, &reasons) == kSuccess) {
      state.slowdowns = reasons;
    }
    return state;
  }
  std::optional<double> power_limit_watts() const override {
    unsigned milliwatts = 0;
    if (call_.power_limit == nullptr || call_.power_limit(gpu_, &milliwatts) != kSuccess) {
      return std::nullopt;
    }
    return 1e-3 * milliwatts;
  }
  std::optional<int64_t> processes() const override {
    unsigned count = 0;  // room for none: the call gives their number
    if (call_.processes == nullptr) return std::nullopt;
    const Status status = call_.processes(gpu_, &count, nullptr);
    if (status != kSuccess && status != kInsufficientSize) return std::nullopt;
    return count;
  }
  bool is_in_slices() const override { return in_slices_; }
  const std::string& driver_version() const override { return driver_version_; }

 private:
  std::string failed(const std::string& what, Status status) const {
    const char* text = call_.error_string(status);
    return fmt::format("NVML: {}: {}", what,
                       text != nullptr ? text : fmt::format("status {}", status));
  }
  std::optional<double> number(Status (*call)(Gpu, unsigned, unsigned*), unsigned which) const {
    unsigned value = 0;
    if (call == nullptr || call(gpu_, which, &value) != kSuccess) return std::nullopt;
    return value;
  }

  void* library_;
  Functions call_;
  bool is_initialized_ = false, in_slices_ = false;
  Gpu gpu_ = nullptr;
  std::string driver_version_;
};

}  // namespace

std::vector<std::string> slowdown_names(uint64_t reasons) {
  constexpr std::pair<uint64_t, const char*> kNames[] = {
      {kSoftwarePowerCap, "software power cap"},
      {kHardwareSlowdown, "hardware slowdown"},
      {kSoftwareThermal, "software thermal slowdown"},
      {kHardwareThermal, "hardware thermal slowdown"},
      {kPowerBrake, "power brake"}};
  std::vector<std::string> names;
  for (const auto& [bit, name] : kNames) {
    if ((reasons & bit) != 0) names.emplace_back(name);
  }
  return names;
}

std::unique_ptr<Nvml> Nvml::open(const std::string& pci_address, std::string& reason,
                                 const char* library_name) {
  void* library = dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    reason = fmt::format("NVML: {} cannot be loaded; it comes with NVIDIA's driver", library_name);
    return nullptr;
  }
  Functions functions;
  if (const char* missing = functions.load(library); missing != nullptr) {
    dlclose(library);
    reason = fmt::format("NVML: {} has no {}; a newer driver's has", library_name, missing);
    return nullptr;
  }
  auto nvml = std::make_unique<LoadedNvml>(library, functions);
  reason = nvml->begin(pci_address);
  if (!reason.empty()) return nullptr;
  return nvml;
}

}  // namespace tandem
