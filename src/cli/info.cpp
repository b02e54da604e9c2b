// tandem info: what this machine is and the limits it reaches.
#include <CLI/CLI.hpp>

#include "base/cpu.h"
#include "base/error.h"
#include "base/json.h"
#include "base/version.h"
#include "cli/model_options.h"
#include "cli/model_path.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "kernels/table.h"
#include "study/device_sheet.h"
#include "study/hardware.h"

namespace tandem {
namespace {

// The default model's size, for machines that do not have it.
constexpr uint64_t kDefaultModelBytes = 98'000'000;

struct InfoOptions {
  std::string model;
  std::string device;  // empty: the host
  int threads = 0;     // 0: all usable CPUs
  bool json = false, measure = false;
};

uint64_t size_of_model(const std::filesystem::path& path) {
  std::error_code error;
  uint64_t bytes = 0;
  if (!std::filesystem::is_directory(path, error)) {
    bytes = std::filesystem::file_size(path, error);
  } else {
    for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
      if (entry.path().extension() == ".safetensors") bytes += entry.file_size(error);
    }
  }
  if (error || bytes == 0) {
    fail(ErrorKind::bad_file, "{}: {}", quote(path.string(), 400),
         error ? error.message() : "holds no weights");
  }
  return bytes;
}

uint64_t bytes_to_read(const InfoOptions& options) {
  if (!options.model.empty()) return size_of_model(resolve_model_path(options.model));
  std::error_code error;
  return std::filesystem::exists(default_model_path(), error) ? size_of_model(default_model_path())
                                                              : kDefaultModelBytes;
}

Json to_json(const HardwareSheet& sheet) {
  Json json;
  json["schema"] = "tandem.info/1";
  json["version"] = version();
  json["commit"] = commit();
  json["compiler"] = compiler();
  json["cpu"] = sheet.cpu;
  json["features"] = sheet.features;
  json["isa"] = std::string(best_isa());
  json["runnable_isas"] = Json::array();
  for (const std::string_view isa : runnable_isas())
    json["runnable_isas"].push_back(std::string(isa));
  json["usable_cpus"] = sheet.usable_cpus;
  json["allowed_cpus"] = sheet.allowed_cpus;
  json["available_memory_bytes"] = sheet.available_memory_bytes;
  json["last_level_cache_bytes"] = sheet.last_level_cache_bytes;
  json["threads"] = sheet.threads;
  json["read_bandwidth"] = Json::array();
  for (const ReadBandwidth& row : sheet.bandwidth) {
    json["read_bandwidth"].push_back(
        {{"bytes", row.bytes}, {"bytes_per_second", row.bytes_per_second}});
  }
  json["int8_instruction"] = sheet.int8_instruction;
  json["f32_instruction"] = sheet.f32_instruction;
  json["peaks"] = Json::array();
  for (const ComputePeak& row : sheet.peaks) {
    json["peaks"].push_back(
        {{"threads", row.threads}, {"int8_gops", row.int8_gops}, {"f32_gflops", row.f32_gflops}});
  }
  return json;
}

std::string to_text(const HardwareSheet& sheet) {
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value) {
    text += fmt::format("{:<16} {}\n", name, value);
  };
  const auto mega = [](uint64_t bytes) { return static_cast<double>(bytes) * 1e-6; };
  line("version", fmt::format("tandem {} ({}, {})", version(), commit(), compiler()));
  line("cpu", sheet.cpu);
  line("features", fmt::format("{}", fmt::join(sheet.features, " ")));
  line("isa", fmt::format("{} (runnable: {})", best_isa(), fmt::join(runnable_isas(), " ")));
  line("usable cpus",
       fmt::format("{} (affinity allows {})", sheet.usable_cpus, sheet.allowed_cpus));
  line("memory", fmt::format("{:.1f} GB available", mega(sheet.available_memory_bytes) * 1e-3));
  line("last cache", sheet.last_level_cache_bytes == 0
                         ? std::string("unknown")
                         : fmt::format("{:.1f} MB", mega(sheet.last_level_cache_bytes)));
  for (const ReadBandwidth& row : sheet.bandwidth) {
    line("read bandwidth",
         fmt::format("{:.1f} GB/s reading {:.0f} MB on {} threads", row.bytes_per_second * 1e-9,
                     mega(row.bytes), sheet.threads));
  }
  for (const ComputePeak& row : sheet.peaks) {
    const std::string threads =
        fmt::format("{} thread{}", row.threads, row.threads == 1 ? "" : "s");
    line("int8 peak",
         fmt::format("{:.0f} Gop/s on {} ({})", row.int8_gops, threads, sheet.int8_instruction));
    line("f32 peak",
         fmt::format("{:.0f} GFLOP/s on {} ({})", row.f32_gflops, threads, sheet.f32_instruction));
  }
  return text;
}

std::string to_text(const DeviceSheet& sheet, const Device& device) {
  std::string text;
  const auto line = [&](std::string_view name, const std::string& value) {
    text += fmt::format("{:<16} {}\n", name, value);
  };
  const auto number = [](const std::optional<double>& value, const char* unit) {
    return value ? fmt::format("{:.0f} {}", *value, unit) : fmt::format("unknown {}", unit);
  };
  const DeviceFacts& facts = sheet.facts;
  line("version", fmt::format("tandem {} ({}, {})", version(), commit(), compiler()));
  line("device",
       fmt::format("{}, {} multiprocessors, at {}{}", facts.description(), facts.multiprocessors,
                   facts.pci_address, sheet.in_slices ? ", in slices (MIG)" : ""));
  line("memory", fmt::format("{:.1f} GB, {:.1f} GB free; L2 {:.0f} MB",
                             static_cast<double>(facts.memory_bytes) * 1e-9,
                             static_cast<double>(device.free_bytes()) * 1e-9,
                             static_cast<double>(facts.cache_bytes) * 1e-6));
  line("driver", fmt::format("{}, CUDA {}", sheet.driver_version, facts.driver_cuda));
  if (sheet.nvml_reason.empty()) {
    line("now",
         fmt::format("{}, SM {}, memory {}, {}, limit {}", number(sheet.state.watts, "W"),
                     number(sheet.state.sm_mhz, "MHz"), number(sheet.state.memory_mhz, "MHz"),
                     number(sheet.state.celsius, "C"), number(sheet.power_limit_watts, "W")));
  } else {
    line("now", "unknown: " + sheet.nvml_reason);
  }
  const std::string library = device.gemm_library();
  line("large products", !library.empty()          ? library
                         : device.isa() == "cuda" ? "own kernels: cuBLASLt 13 is not found"
                                                  : "own kernels");
  if (!sheet.measured) {
    line("limits", "not measured on this GPU and driver; --measure does");
    return text;
  }
  const DeviceLimits& limits = sheet.measured->limits;
  line("measured", sheet.measured->measured_at);
  line("read",
       fmt::format("{:.0f} GB/s, {:.1f} GB in one pass", limits.read_bytes_per_second * 1e-9,
                   static_cast<double>(limits.stream_bytes) * 1e-9));
  line("copy", fmt::format("{:.0f} GB/s read and written", limits.copy_bytes_per_second * 1e-9));
  line("launch", fmt::format("{:.2f} us within a CUDA graph", limits.launch_seconds * 1e6));
  for (const DeviceLimits::Gemm& gemm : limits.gemms) {
    line("product",
         fmt::format("{:.0f} Top/s, {}, {} x {} x {}, by {}", gemm.operations_per_second * 1e-12,
                     gemm.type, gemm.size, gemm.size, gemm.size, sheet.measured->gemm_library));
  }
  return text;
}

int device_info(const InfoOptions& options) {
  DeviceSheet sheet = describe_device_sheet(options.device, cache_folder());
  if (options.measure && sheet.facts.is_capped) {
    fail(ErrorKind::usage, "--measure: the limits are {}'s own; leave out --arch-cap",
         sheet.facts.name);
  }
  const std::shared_ptr<Device> device = open_device(options.device);
  if (options.measure) measure_and_keep(sheet, *device, cache_folder());
  if (!options.json) {
    write_stdout(to_text(sheet, *device));
    return 0;
  }
  Json json = {{"schema", "tandem.device/1"}, {"version", version()}, {"commit", commit()}};
  json.update(to_json(sheet));
  json["gemm_library"] = device->gemm_library();
  json["free_bytes"] = device->free_bytes();
  write_stdout(dump_json(json, 2) + "\n");
  return 0;
}

int info(const InfoOptions& options) {
  if (!options.device.empty()) return device_info(options);
  const uint64_t model_bytes = bytes_to_read(options);
  HardwareSheet facts = describe_hardware();
  ThreadPool pool(chosen_threads(options.threads));
  const bool on_terminal = stderr_is_terminal();
  const HardwareSheet sheet =
      measure_hardware(std::move(facts), pool, model_bytes, [&](const std::string& what) {
        if (on_terminal) write_stderr("\r\x1b[Kmeasuring " + what);
      });
  if (on_terminal) write_stderr("\r\x1b[K");
  write_stdout(options.json ? dump_json(to_json(sheet), 2) + "\n" : to_text(sheet));
  return 0;
}

}  // namespace

void add_info(CLI::App& app, Action& action) {
  const auto options = std::make_shared<InfoOptions>();
  CLI::App* verb = app.add_subcommand("info", "Describe this machine and measure its limits (2 s)");
  verb->add_option("--model", options->model, "Read as many bytes as this model has")
      ->type_name("MODEL");
  add_threads_option(*verb, options->threads);
  add_device_option(*verb, options->device,
                    "Describe this GPU instead: cuda, or cuda:N of several");
  add_arch_cap_option(*verb, options->device);
  verb->add_flag("--measure", options->measure,
                 "Measure the GPU's limits and keep them for bench and study (10 s)")
      ->needs("--device");
  verb->add_flag("--json", options->json, "Print one JSON document");
  verb->footer(
      "Examples:\n  tandem info\n  tandem info --model model.gguf --json\n"
      "  tandem info --device cuda --measure");
  verb->callback([options, &action] { action = [options] { return info(*options); }; });
}

}  // namespace tandem
