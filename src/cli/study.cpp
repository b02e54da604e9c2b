// tandem study [MODEL]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>

#include "advisor/rank.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "cli/model_options.h"
#include "cli/model_path.h"
#include "cli/report_input.h"
#include "cli/study_setup.h"
#include "cli/study_table.h"
#include "cli/study_variants.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "formats/random_checkpoint.h"
#include "kernels/table.h"
#include "study/child.h"
#include "study/device_sheet.h"
#include "study/hardware.h"
#include "study/report.h"
#include "study/run.h"
#include "study/task.h"

namespace tandem {
namespace {

constexpr double kMeasureSeconds = 300;                   // for what takes ten
constexpr uint64_t kRandomReadBytes = uint64_t{1} << 30;  // beyond the caches, as a model is

struct StudyFlags {
  std::string model, profile = "quick", text, out, isa, quality_floor, power_command, cell_json;
  std::vector<std::string> variants, kv;
  std::string random_weights;  // a shape in the place of a model
  std::vector<std::string> encodings = {"bf16", "int8", "fp8", "int4-g128+q8_0"};
  std::vector<int64_t> batches;
  int threads = 0;
  uint64_t seed = 1;
  bool fresh = false;
};

Profile chosen_profile(const StudyFlags& flags) {
  Profile profile = find_profile(flags.profile);
  if (!flags.random_weights.empty()) profile.variants = flags.encodings;
  if (!flags.variants.empty()) {
    profile.variants.clear();
    for (std::string name : flags.variants) {
      std::replace(name.begin(), name.end(), '-', ' ');
      if (std::ranges::find(all_variants(), name) == all_variants().end()) {
        fail(ErrorKind::usage, "--variants: found {}, expected as-shipped, bf16, int8 or int4-g64",
             quote(name));
      }
      if (std::ranges::find(profile.variants, name) == profile.variants.end()) {
        profile.variants.push_back(name);
      }
    }
  }
  if (!flags.kv.empty()) profile.kv = flags.kv;
  for (const std::string& name : profile.kv) kv_type_of(name);
  if (!flags.batches.empty()) profile.batches = flags.batches;
  for (const int64_t batch : profile.batches) {
    if (batch < 1 || batch > 256) {
      fail(ErrorKind::usage, "--batches: found {}, expected 1 to 256", batch);
    }
  }
  const auto make_unique_values = [](auto& values) {
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
  };
  make_unique_values(profile.kv);
  make_unique_values(profile.batches);
  return profile;
}

// The command as it was typed, quoted for a shell.
std::string typed_command() {
  std::string bytes;
  if (std::FILE* file = std::fopen("/proc/self/cmdline", "rb")) {
    char piece[4096];
    for (size_t n; (n = std::fread(piece, 1, sizeof piece, file)) > 0;) bytes.append(piece, n);
    std::fclose(file);
  }
  std::string command = "tandem";
  for (size_t at = bytes.find('\0'); at != std::string::npos && at + 1 < bytes.size();) {
    const size_t end = bytes.find('\0', at + 1);
    std::string word = bytes.substr(at + 1, end - at - 1);
    const bool plain = !word.empty() && word.find_first_not_of(
                                            "abcdefghijklmnopqrstuvwxyz"
                                            "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                            "0123456789-_=./,:+") == std::string::npos;
    if (!plain) {
      for (size_t i = 0; (i = word.find('\'', i)) != std::string::npos; i += 4)
        word.replace(i, 1, "'\\''");
      word = "'" + word + "'";
    }
    command += " " + word;
    at = end;
  }
  return command;
}

// The encoding that most bytes of a quantized model have; empty for a model in floating point.
std::string shipped_encoding(const Checkpoint& checkpoint) {
  std::map<std::string, uint64_t> bytes;
  for (const NamedTensor& tensor : checkpoint.tensors) {
    if (!tensor.weight.encoding.is_plain()) {
      bytes[tensor.weight.encoding.name()] += tensor.weight.total_bytes();
    }
  }
  const auto most =
      std::ranges::max_element(bytes, {}, [](const auto& entry) { return entry.second; });
  return most == bytes.end() ? "" : most->first;
}

// The processor's limits, measured now, because a shared machine's differ from hour to hour. The
// read limit is the bandwidth beyond the caches.
void add_cpu_limits(uint64_t model_bytes, ThreadPool& pool, Json& facts) {
  if (!cpu_features().avx2) return;
  const HardwareSheet sheet = measure_hardware(describe_hardware(), pool, model_bytes);
  if (!sheet.bandwidth.empty()) {
    facts["read_gbps_limit"] = sheet.bandwidth.back().bytes_per_second * 1e-9;
  }
  for (const ComputePeak& peak : sheet.peaks) {
    if (peak.threads != pool.size()) continue;
    facts["int8_gops_limit"] = peak.int8_gops;
    facts["f32_gflops_limit"] = peak.f32_gflops;
  }
}

// A GPU and its limits, measured in a child process once for a driver: this process starts no work
// on the GPU, whose idle power is to be taken.
DeviceSheet device_sheet(const std::string& device) {
  DeviceSheet sheet = describe_device_sheet(device, cache_folder());
  if (sheet.measured) return sheet;
  write_stderr("measuring the limits of " + sheet.facts.model + "\n");
  const ChildResult child = run_child(
      {program_path(), "info", "--device", sheet.facts.name, "--measure"}, kMeasureSeconds);
  if (!child.ok()) {
    fail(ErrorKind::system, "info --device {} --measure {}: {}", sheet.facts.name, child.outcome(),
         quote(child.messages, 400));
  }
  return describe_device_sheet(device, cache_folder());
}

// What every Record of this session says beside its numbers; model_bytes: about as much as a step
// reads.
Json study_facts(uint64_t model_bytes, ThreadPool& pool, const std::optional<DeviceSheet>& sheet) {
  Json facts = {{"command", typed_command()}};
  if (!sheet) {
    add_cpu_limits(model_bytes, pool, facts);
    return facts;
  }
  const ReadLimit limit = read_limit_of(*sheet);
  if (limit.bytes_per_second) facts["read_gbps_limit"] = *limit.bytes_per_second * 1e-9;
  facts["read_limit_source"] = limit.source;
  facts["device"] = to_json(*sheet);
  return facts;
}

// A real model: its checkpoint, its variants on disk and the text.
void add_model(const StudyFlags& flags, const std::optional<DeviceSheet>& sheet,
               StudySettings& settings) {
  settings.model_path = resolve_model_path(flags.model);
  set_study_text(flags.text, settings);
  const Checkpoint source = load_checkpoint(settings.model_path);
  settings.model_hash = checkpoint_hash(source);
  ThreadPool pool(settings.threads);
  VariantCache variants(source, settings.model_hash, cache_folder(), {}, pool,
                        [](const std::string& line) { write_stderr(line + "\n"); });
  for (const std::string& name : settings.profile.variants) {
    settings.variants.push_back(variants.get(name));
  }
  settings.baseline_path = variants.get(kBaselineVariant).path;
  settings.facts = study_facts(source.file_bytes, pool, sheet);
  if (const std::string encoding = shipped_encoding(source); !encoding.empty()) {
    settings.facts["shipped_encoding"] = encoding;
  }
}

// A shape whose weights are drawn: speed, memory and energy, and no quality.
void add_random_weights(const StudyFlags& flags, const std::optional<DeviceSheet>& sheet,
                        StudySettings& settings) {
  const ModelConfig config = read_model_shape(flags.random_weights);
  settings.model_path = flags.random_weights;
  settings.model_hash = hash_hex(std::as_bytes(MappedFile(settings.model_path).bytes()));
  settings.text_path = "random token ids";
  settings.text_hash = "none";
  settings.random_vocabulary = config.vocab_size;
  for (const std::string& name : settings.profile.variants) {
    settings.variants.push_back({name, settings.model_path, parse_random_weights(name)});
  }
  ThreadPool pool(settings.threads);
  settings.facts = study_facts(kRandomReadBytes, pool, sheet);
  settings.facts["random_weights"] = true;
}

StudySettings make_settings(const StudyFlags& flags) {
  StudySettings settings;
  settings.profile = chosen_profile(flags);
  settings.isa = chosen_isa(flags.isa);
  settings.threads = chosen_threads(flags.threads);
  settings.seed = flags.seed;
  settings.meter.power_command = flags.power_command;
  std::optional<DeviceSheet> sheet;
  if (names_device(settings.isa)) {
    sheet = device_sheet(settings.isa);
    settings.meter.gpu_pci_address = sheet->facts.pci_address;
    settings.processor = sheet->facts.description();
    // Time on a GPU is short: one type of cache unless others are asked for.
    if (flags.kv.empty()) settings.profile.kv = {"bf16"};
  }
  (flags.random_weights.empty() ? add_model : add_random_weights)(flags, sheet, settings);
  return settings;
}

int run(const StudyFlags& flags) {
  if (!flags.cell_json.empty()) {
    write_stdout(run_task(flags.cell_json) + "\n");
    return 0;
  }
  const QualityFloor floor = parse_quality_floor(flags.quality_floor);
  const StudySettings settings = make_settings(flags);
  StudyOptions options;
  options.out_dir = flags.out.empty() ? std::filesystem::path("studies") / flags.profile
                                      : std::filesystem::path(flags.out);
  options.program = program_path();
  options.fresh = flags.fresh;
  options.on_progress = print_progress;
  const StudyResult result = run_study(settings, options);

  const Ranking ranking = rank(result.records, floor);
  write_stdout(study_table(result.records) + "\n" + advice_text(ranking, floor) + "\n");
  const std::filesystem::path report = options.out_dir / "report.html";
  write_report(report, make_report_input(result.records, floor));
  write_stdout(fmt::format(
      "study {}: {} measured now, {} found from before\n"
      "records: {}\n         {}\nreport:  {}\n",
      result.study_id, result.num_measured, result.num_found,
      (options.out_dir / "records.jsonl").string(), (options.out_dir / "records.csv").string(),
      std::filesystem::absolute(report).string()));
  if (!result.failures.empty()) {
    for (const TaskFailure& failure : result.failures) {
      write_stderr("failed: " + failure.text() + "\n");
    }
    fail(ErrorKind::system, "{} of the study's tasks failed; the same command tries them again",
         result.failures.size());
  }
  if (!flags.quality_floor.empty() && !ranking.advice.front().best) {
    fail(ErrorKind::quality_gate, "nothing measured meets --quality-floor {}", flags.quality_floor);
  }
  return 0;
}

}  // namespace

void add_study(CLI::App& app, Action& action) {
  auto flags = std::make_shared<StudyFlags>();
  CLI::App* verb =
      app.add_subcommand("study", "Measure what each precision of a model costs and gains");
  add_study_options(*verb, flags->model, flags->text, flags->fresh);
  verb->add_option("--profile", flags->profile, "smoke (1 min), quick (5 min) or full")
      ->capture_default_str()
      ->type_name("NAME");
  verb->add_option("-o,--out", flags->out, "Folder of the results (default: studies/PROFILE)")
      ->type_name("DIR");
  verb->add_option("--variants", flags->variants, "Some of as-shipped,bf16,int8,int4-g64")
      ->delimiter(',')
      ->type_name("LIST");
  verb->add_option("--random-weights", flags->random_weights,
                   "A shape of data/models with random weights: no quality is measured")
      ->excludes(verb->get_option("MODEL"))
      ->excludes(verb->get_option("--text"))
      ->excludes(verb->get_option("--variants"))
      ->type_name("FILE");
  verb->add_option("--encodings", flags->encodings,
                   "Of random weights, layers+output matrix (bf16,int8,fp8,int4-g128+q8_0)")
      ->needs("--random-weights")
      ->delimiter(',')
      ->type_name("LIST");
  verb->add_option("--kv", flags->kv, "Some of bf16,int8,fp8,int4")
      ->delimiter(',')
      ->type_name("LIST");
  verb->add_option("--batches", flags->batches, "Sequences at once, such as 1,2,4,8")
      ->delimiter(',')
      ->type_name("LIST");
  add_threads_option(*verb, flags->threads);
  add_isa_option(*verb, flags->isa);
  verb->add_option("--quality-floor", flags->quality_floor,
                   "Least quality to recommend, against bf16 (top1=90,ppl=5)")
      ->type_name("PERCENT");
  verb->add_option("--power-command", flags->power_command,
                   "A command that prints watts, in the place of NVML or RAPL")
      ->type_name("CMD");
  verb->add_option("--seed", flags->seed, "Of the prompts and of the order of cells")
      ->capture_default_str()
      ->type_name("N")
      ->check(seed_number());
  verb->add_option("--cell-json", flags->cell_json)->group("");
  verb->footer(
      "Examples:\n  tandem study --profile smoke\n"
      "  tandem study model.gguf --text book.txt --batches 1,8 --out results\n"
      "  tandem study --power-command 'cat /run/watts'\n"
      "  tandem study --random-weights data/models/Llama-3.1-8B.json --device cuda\n"
      "Stop it at any time: the same command goes on where it was.");
  verb->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace tandem
