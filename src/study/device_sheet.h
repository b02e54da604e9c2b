// A GPU -> its sheet: what it is, how it runs now, and the limits measured on it once and kept.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/json.h"
#include "kernels/device.h"
#include "study/meters/nvml.h"

namespace tandem {

struct MeasuredLimits {
  DeviceLimits limits;
  std::string gemm_library;  // that multiplied
  std::string measured_at;   // UTC, ISO 8601
};

struct DeviceSheet {
  DeviceFacts facts;
  // By NVML; where it cannot be asked, `nvml_reason` says why.
  std::string driver_version;  // else "CUDA 13.0"
  bool in_slices = false;      // MIG
  std::optional<double> power_limit_watts;
  GpuState state;
  std::string nvml_reason;
  std::optional<MeasuredLimits> measured;
};

// Starts no work on the device. Limits come from `cache_dir`, where they were kept for this GPU's
// model, driver and slicing. Throws no_device.
DeviceSheet describe_device_sheet(const std::string& device,
                                  const std::filesystem::path& cache_dir);

// Measures for a few seconds and keeps the result in cache_dir. Throws system when it cannot.
void measure_and_keep(DeviceSheet& sheet, Device& device, const std::filesystem::path& cache_dir);

// Bytes a second that a device can read, and where that number is from: measured, or one known of
// its model, or (absent) neither.
struct ReadLimit {
  std::optional<double> bytes_per_second;
  std::string source;
};
ReadLimit read_limit_of(const DeviceSheet& sheet);

Json to_json(const DeviceSheet& sheet);
Json to_json(const MeasuredLimits& measured);
MeasuredLimits limits_from_json(const Json& json);  // throws bad_file

}  // namespace tandem
