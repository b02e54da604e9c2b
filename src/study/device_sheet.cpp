#include "study/device_sheet.h"

#include <algorithm>
#include <cctype>
#include <ctime>

#include "base/error.h"
#include "base/file.h"

namespace tandem {
namespace {

constexpr uint64_t kMostLimitsBytes = 1 << 16;

// Models whose limit is known from measurements elsewhere, bytes a second.
struct KnownLimit {
  const char* model;
  double read_bytes_per_second;
};
constexpr KnownLimit kKnownLimits[] = {{"NVIDIA H200", 4.54e12}};

std::filesystem::path limits_path(const DeviceSheet& sheet,
                                  const std::filesystem::path& cache_dir) {
  std::string name =
      sheet.facts.model + " " + sheet.driver_version + (sheet.in_slices ? " MIG" : "");
  std::ranges::replace_if(
      name, [](unsigned char c) { return std::isalnum(c) == 0 && c != '.'; }, '-');
  return cache_dir / "devices" / (name + ".json");
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

Json or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

}  // namespace

DeviceSheet describe_device_sheet(const std::string& device,
                                  const std::filesystem::path& cache_dir) {
  DeviceSheet sheet;
  sheet.facts = describe_device(device);
  sheet.driver_version = "CUDA " + sheet.facts.driver_cuda;
  if (const auto nvml = Nvml::open(sheet.facts.pci_address, sheet.nvml_reason)) {
    sheet.driver_version = nvml->driver_version();
    sheet.in_slices = nvml->is_in_slices();
    sheet.power_limit_watts = nvml->power_limit_watts();
    sheet.state = nvml->state();
  }
  const std::filesystem::path path = limits_path(sheet, cache_dir);
  if (std::filesystem::exists(path)) {
    try {
      sheet.measured =
          limits_from_json(parse_json(read_text_file(path, kMostLimitsBytes), path.string()));
    } catch (const Error& error) {
      if (error.kind != ErrorKind::bad_file) throw;  // damaged: as if it had not been measured
    }
  }
  return sheet;
}

void measure_and_keep(DeviceSheet& sheet, Device& device, const std::filesystem::path& cache_dir) {
  sheet.measured = {device.measure_limits(), device.gemm_library(), utc_now()};
  const std::filesystem::path path = limits_path(sheet, cache_dir);
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  if (error) {
    fail(ErrorKind::system, "{}: {}", path.parent_path().string(), error.message());
  }
  write_file_atomic(path, dump_json(to_json(*sheet.measured), 2) + "\n");
}

ReadLimit read_limit_of(const DeviceSheet& sheet) {
  if (sheet.measured) {
    return {sheet.measured->limits.read_bytes_per_second,
            "measured on this GPU, " + sheet.measured->measured_at};
  }
  for (const KnownLimit& known : kKnownLimits) {
    if (sheet.facts.model == known.model) {
      return {known.read_bytes_per_second, "of another " + sheet.facts.model +
                                               "; this one: tandem info --device cuda --measure"};
    }
  }
  return {std::nullopt, "not measured; tandem info --device cuda --measure does"};
}

Json to_json(const MeasuredLimits& measured) {
  const DeviceLimits& limits = measured.limits;
  Json gemms = Json::array();
  for (const DeviceLimits::Gemm& gemm : limits.gemms) {
    gemms.push_back({{"type", gemm.type},
                     {"size", gemm.size},
                     {"operations_per_second", gemm.operations_per_second}});
  }
  return {{"schema", "tandem.device_limits/1"},
          {"measured_at", measured.measured_at},
          {"gemm_library", measured.gemm_library},
          {"stream_bytes", limits.stream_bytes},
          {"read_bytes_per_second", limits.read_bytes_per_second},
          {"copy_bytes_per_second", limits.copy_bytes_per_second},
          {"launch_seconds", limits.launch_seconds},
          {"gemms", gemms}};
}

MeasuredLimits limits_from_json(const Json& json) {
  try {
    MeasuredLimits measured;
    json.at("measured_at").get_to(measured.measured_at);
    json.at("gemm_library").get_to(measured.gemm_library);
    DeviceLimits& limits = measured.limits;
    json.at("stream_bytes").get_to(limits.stream_bytes);
    json.at("read_bytes_per_second").get_to(limits.read_bytes_per_second);
    json.at("copy_bytes_per_second").get_to(limits.copy_bytes_per_second);
    json.at("launch_seconds").get_to(limits.launch_seconds);
    for (const Json& gemm : json.at("gemms")) {
      limits.gemms.push_back({gemm.at("type").get<std::string>(), gemm.at("size").get<int64_t>(),
                              gemm.at("operations_per_second").get<double>()});
    }
    if (!(limits.read_bytes_per_second > 0) || !(limits.copy_bytes_per_second > 0)) {
      fail(ErrorKind::bad_file, "device limits: a rate is not above 0");
    }
    return measured;
  } catch (const Json::exception& error) {
    fail(ErrorKind::bad_file, "device limits: {}", quote(error.what(), 160));
  }
}

Json to_json(const DeviceSheet& sheet) {
  const DeviceFacts& facts = sheet.facts;
  return {{"device", facts.name},
          {"model", facts.model},
          {"capability", facts.capability},
          {"kernels", facts.generation},
          {"pci_address", facts.pci_address},
          {"memory_bytes", facts.memory_bytes},
          {"cache_bytes", facts.cache_bytes},
          {"multiprocessors", facts.multiprocessors},
          {"driver_version", sheet.driver_version},
          {"driver_cuda", facts.driver_cuda},
          {"in_slices", sheet.in_slices},
          {"power_limit_watts", or_null(sheet.power_limit_watts)},
          {"watts", or_null(sheet.state.watts)},
          {"sm_mhz", or_null(sheet.state.sm_mhz)},
          {"memory_mhz", or_null(sheet.state.memory_mhz)},
          {"celsius", or_null(sheet.state.celsius)},
          {"slowdowns", slowdown_names(sheet.state.slowdowns.value_or(0))},
          {"nvml", sheet.nvml_reason},
          {"limits", sheet.measured ? to_json(*sheet.measured) : Json()}};
}

}  // namespace tandem
