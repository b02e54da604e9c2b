// tandem bench: the model's step alone, with llama-bench's flags and output.
#include <fmt/chrono.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <ctime>
#include <map>
#include <optional>

#include "base/cpu.h"
#include "base/error.h"
#include "cli/bench_output.h"
#include "cli/explain.h"
#include "cli/model_options.h"
#include "cli/model_path.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "kernels/table.h"
#include "model/model.h"
#include "study/device_sheet.h"
#include "study/hardware.h"
#include "study/random_model.h"
#include "study/task.h"

namespace tandem {
namespace {

using Texts = std::vector<std::string>;

struct BenchOptions {
  Texts models, prompt, new_tokens, prompt_and_new, depth, batch, ubatch, threads, kv_k, kv_v,
      sequences;
  int repetitions = 5;
  std::string output = "md", isa;
  std::string random_weights, encoding = "bf16", lm_head;  // a shape in the place of models
  std::string power_command;
  double energy_seconds = 10;
  bool no_warm_up = false, energy = false;
  KernelOptions kernels;
};

// What is the same for all rows: where the model runs and how its energy is read.
struct Place {
  std::string isa;
  HardwareSheet host;
  std::optional<DeviceSheet> sheet;  // of a GPU
  std::shared_ptr<Device> device;    // opened after the idle power was taken
  std::unique_ptr<EnergyMeter> meter;
  EnergyWindows windows;
  BenchRow row;  // what of each row is known by now
};

// Everything that is crossed; a test runs once for each combination.
struct Grid {
  std::vector<int64_t> threads, batch, ubatch, depth, sequences;
  Texts kv;
  std::vector<std::pair<int64_t, int64_t>> tests;  // prompt and new tokens
};

std::vector<int64_t> numbers(const char* flag, const Texts& texts, int64_t least,
                             std::vector<int64_t> fallback) {
  std::vector<int64_t> all;
  for (const std::string& text : texts) {
    const auto list = parse_bench_list(flag, text, least);
    all.insert(all.end(), list.begin(), list.end());
  }
  return all.empty() ? fallback : all;
}

Texts split(const Texts& lists) {
  Texts items;
  for (const std::string& list : lists) {
    for (size_t begin = 0; begin <= list.size();) {
      const size_t end = std::min(list.find(',', begin), list.size());
      items.push_back(list.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return items;
}

// Our name of a cache type; llama-bench's "q8_0", 8 bits with a scale, is our int8.
std::string kv_name(const char* flag, const std::string& given) {
  for (const char* name : {"bf16", "int8", "fp8", "int4"}) {
    if (given == name) return given;
  }
  if (given == "q8_0") return "int8";
  fail(ErrorKind::usage,
       "{}: found {}, expected bf16, int8 (or q8_0, which is the same here), fp8 or int4", flag,
       quote(given));
}

Texts kv_types(const BenchOptions& options) {
  Texts k = split(options.kv_k), v = split(options.kv_v);
  for (std::string& type : k) type = kv_name("-ctk", type);
  for (std::string& type : v) type = kv_name("-ctv", type);
  if (!k.empty() && !v.empty() && k != v) {
    fail(ErrorKind::usage, "-ctk {} and -ctv {}: K and V have one type here; expected equal lists",
         fmt::join(k, ","), fmt::join(v, ","));
  }
  return !k.empty() ? k : !v.empty() ? v : Texts{"bf16"};
}

Grid make_grid(const BenchOptions& options) {
  Grid grid;
  grid.threads = numbers("-t", options.threads, 1, {usable_cpus()});
  for (const int64_t threads : grid.threads) {
    if (threads > static_cast<int64_t>(allowed_cpus().size())) {
      fail(ErrorKind::usage, "{} threads; this process may use {} CPUs", threads,
           allowed_cpus().size());
    }
  }
  grid.batch = numbers("-b", options.batch, 1, {2048});
  grid.ubatch = numbers("-ub", options.ubatch, 1, {512});
  grid.depth = numbers("-d", options.depth, 0, {0});
  grid.sequences = numbers("-npl", options.sequences, 1, {1});
  grid.kv = kv_types(options);
  for (const int64_t n : numbers("-p", options.prompt, 0, {512})) {
    if (n > 0) grid.tests.emplace_back(n, 0);
  }
  for (const int64_t n : numbers("-n", options.new_tokens, 0, {128})) {
    if (n > 0) grid.tests.emplace_back(0, n);
  }
  for (const std::string& pair : options.prompt_and_new) {
    const auto both = parse_bench_list("-pg", pair, 0);
    if (both.size() != 2 || both[0] + both[1] == 0) {
      fail(ErrorKind::usage, "-pg: found {}, expected PROMPT,NEW like 512,128", quote(pair));
    }
    grid.tests.emplace_back(both[0], both[1]);
  }
  if (grid.tests.empty()) fail(ErrorKind::usage, "nothing to time: -p 0 and -n 0 without -pg");
  return grid;
}

// "llama 134.52 M q4_1": the encoding is the one with the most matrices.
std::string model_type(const Checkpoint& checkpoint, uint64_t parameters) {
  std::map<std::string, int> counts;
  for (const auto& [name, weight] : checkpoint.tensors) {
    if (weight.N > 1) ++counts[weight.encoding.name()];
  }
  const auto most =
      std::max_element(counts.begin(), counts.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  return fmt::format("{} {:.2f} M {}", checkpoint.config.family,
                     static_cast<double>(parameters) * 1e-6, most->first);
}

// The bandwidth beyond the caches, as a study takes it; none without the kernel that measures it.
std::optional<double> measure_read_limit(ThreadPool& pool, const HardwareSheet& facts,
                                         uint64_t model_bytes) {
  if (!cpu_features().avx2) return std::nullopt;
  const HardwareSheet sheet = measure_hardware(facts, pool, model_bytes);
  if (sheet.bandwidth.empty()) return std::nullopt;
  return sheet.bandwidth.back().bytes_per_second;
}

void bench_tests(const BenchOptions& options, const Grid& grid, const Place& place,
                 const Model& model, BenchRow& row, BenchPrinter& printer) {
  for (const int64_t batch : grid.batch)
    for (const int64_t ubatch : grid.ubatch)
      for (const std::string& kv : grid.kv)
        for (const int64_t depth : grid.depth)
          for (const int64_t sequences : grid.sequences)
            for (const auto& [prompt, new_tokens] : grid.tests) {
              row.n_batch = batch;
              row.n_ubatch = std::min(ubatch, batch);
              row.kv = kv;
              row.test = {prompt, new_tokens, depth, sequences};
              row.started_at =
                  fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
              const StepSettings settings{kv_type_of(kv), row.n_ubatch, options.repetitions,
                                          !options.no_warm_up};
              row.timing = time_steps(model, row.test, settings);
              if (place.meter != nullptr) {
                row.energy =
                    measure_step_energy(model, row.test, settings, *place.meter, place.windows);
                row.energy_source = energy_source(*place.meter, *row.energy);
              }
              write_stdout(printer.row(row));
            }
}

Checkpoint random_model(const BenchOptions& options, const Place& place) {
  ThreadPool pool(usable_cpus());
  const RandomWeights weights{options.encoding, options.lm_head.empty() ? "bf16" : options.lm_head};
  return make_random_model(options.random_weights, weights, place.device.get(), pool);
}

// Opens the meter and the GPU, in the order in which the GPU's idle power can be taken.
Place make_place(const BenchOptions& options) {
  Place place;
  place.isa = chosen_isa(options.isa);
  place.host = describe_hardware();
  place.row.isa = place.isa;
  MeterChoice choice{options.power_command, ""};
  if (names_device(place.isa)) {
    place.sheet = describe_device_sheet(place.isa, cache_folder());
    const ReadLimit limit = read_limit_of(*place.sheet);
    place.row.read_limit_bytes_per_second = limit.bytes_per_second;
    place.row.read_limit_source = limit.source;
    place.row.device = place.sheet->facts.description();
    choice.gpu_pci_address = place.sheet->facts.pci_address;
  }
  if (options.energy) {
    std::string reason;
    place.windows = {options.energy_seconds, options.energy_seconds / 2};
    place.meter = open_energy_meter(choice, reason);
    if (place.meter != nullptr) {
      place.row.idle_watts = measure_rest(*place.meter, place.windows.idle_seconds).watts();
    } else {
      place.row.energy_source = "not measured: " + reason;
      write_stderr("energy " + place.row.energy_source + "\n");
    }
  }
  if (place.sheet) {
    place.device = open_device(place.isa);
    place.row.gemm_library = place.device->gemm_library();
  }
  return place;
}

// Before anything is printed: a test that cannot run.
void check_contexts(const Grid& grid, const Checkpoint& checkpoint) {
  const int64_t most = checkpoint.config.max_context;
  for (const int64_t depth : grid.depth) {
    for (const auto& [prompt, new_tokens] : grid.tests) {
      if (depth + prompt + new_tokens <= most) continue;
      fail(ErrorKind::usage, "depth {} + prompt {} + new {} tokens; {} was made for at most {}",
           depth, prompt, new_tokens, quote(checkpoint.path.string(), 400), most);
    }
  }
}

void bench_model(const BenchOptions& options, const Grid& grid, const Checkpoint& checkpoint,
                 const Place& place, BenchPrinter& printer) {
  BenchRow row = place.row;
  row.model_path = checkpoint.path.string();
  for (const auto& [name, weight] : checkpoint.tensors) {
    row.model_bytes += weight.total_bytes();
    row.model_parameters += static_cast<uint64_t>(weight.N) * static_cast<uint64_t>(weight.K);
  }
  row.model_type = model_type(checkpoint, row.model_parameters);
  for (const int64_t threads : grid.threads) {
    ThreadPool pool(static_cast<int>(threads));
    row.threads = pool.size();
    if (!place.sheet) {
      row.read_limit_bytes_per_second = measure_read_limit(pool, place.host, row.model_bytes);
      row.read_limit_source = "measured now";
    }
    const Model model(checkpoint, pool, row.isa, options.kernels.require_sparse);
    explain_kernels(model, options.kernels);
    row.kernels = fmt::format("{}", fmt::join(model.kernels_in_use(), ", "));
    bench_tests(options, grid, place, model, row, printer);
  }
}

int bench(const BenchOptions& options) {
  BenchPrinter printer(options.output, options.energy);
  const Grid grid = make_grid(options);
  const Place place = make_place(options);  // outlives the checkpoints, which may lie in its memory
  Texts paths = split(options.models);
  if (paths.empty()) paths.emplace_back();
  std::vector<Checkpoint> checkpoints;  // mapped, not read
  if (!options.random_weights.empty()) paths = {options.random_weights};
  for (const std::string& path : paths) {
    checkpoints.push_back(options.random_weights.empty() ? load_checkpoint(resolve_model_path(path))
                                                         : random_model(options, place));
    check_contexts(grid, checkpoints.back());
  }
  write_stdout(printer.header());
  for (const Checkpoint& checkpoint : checkpoints) {
    bench_model(options, grid, checkpoint, place, printer);
  }
  write_stdout(printer.footer());
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  const auto options = std::make_shared<BenchOptions>();
  CLI::App* verb = app.add_subcommand("bench", "Time the model's step alone, as llama-bench does");
  // Each use of a flag takes one list.
  const auto list = [&](const char* names, Texts& values, const char* what, const char* type) {
    verb->add_option(names, values, what)->type_name(type)->expected(1)->take_all();
  };
  list("-m,--model", options->models, "Model files or folders (the set-up's model)", "LIST");
  verb->get_option("--model")->option_text("LIST");
  list("-p,--n-prompt", options->prompt, "Prompt tokens (512); 0: none", "LIST");
  list("-n,--n-gen", options->new_tokens, "New tokens (128); 0: none", "LIST");
  list("--pg", options->prompt_and_new, "-pg: a prompt, then new tokens, timed as one", "P,N");
  list("-d,--n-depth", options->depth, "Tokens in the cache before (0)", "LIST");
  list("--npl,--n-parallel", options->sequences, "-npl: sequences at once (1)", "LIST");
  list("-b,--batch-size", options->batch, "Bounds -ub (2048)", "LIST");
  list("--ub,--ubatch-size", options->ubatch, "-ub: tokens of a prefill step (512)", "LIST");
  list("-t,--threads", options->threads, "Threads (all CPUs this process may use)", "LIST");
  list("--ctk,--cache-type-k", options->kv_k, "-ctk: bf16, int8 (or q8_0), fp8, int4 (bf16)",
       "LIST");
  list("--ctv,--cache-type-v", options->kv_v, "-ctv: as -ctk", "LIST");
  verb->add_option("-r,--repetitions", options->repetitions, "Samples of each test")
      ->capture_default_str()
      ->check(whole_number(1, 10000))
      ->type_name("N");
  verb->add_option("-o,--output", options->output, "csv, json, jsonl, md or sql")
      ->capture_default_str()
      ->type_name("FORMAT");
  add_isa_option(*verb, options->isa);
  add_kernel_options(*verb, options->kernels);
  verb->add_option("--random-weights", options->random_weights,
                   "A shape of data/models with random weights, in the place of a model")
      ->type_name("FILE")
      ->option_text("FILE")
      ->excludes("--model");
  verb->add_option("--encoding", options->encoding,
                   "Of random layers: bf16, int8, int4-g128, q4_k, bf16-2:4 ...")
      ->type_name("NAME")
      ->option_text("NAME")
      ->needs("--random-weights");
  verb->add_option("--lm-head", options->lm_head, "Of the random output matrix (bf16)")
      ->type_name("NAME")
      ->option_text("NAME")
      ->needs("--random-weights");
  verb->add_flag("--energy", options->energy, "Measure each test's energy too, after its time");
  verb->add_option("--energy-seconds", options->energy_seconds,
                   "--energy: of work; half of it idle before and after")
      ->capture_default_str()
      ->check(CLI::Range(1.0, 600.0).description(""))
      ->type_name("S");
  verb->add_option("--power-command", options->power_command,
                   "--energy: a command that prints watts, in the place of NVML or RAPL")
      ->type_name("CMD")
      ->option_text("CMD");
  verb->add_flag("--no-warmup", options->no_warm_up, "Count the first repetition too");
  verb->footer(
      "A LIST is 128,256 or 64-512*2 or 1-8+2, and a flag may be repeated; all lists are crossed.\n"
      "GB/s: weights of each step and its cache read once, over the time; of limit: its share of "
      "the read\nbandwidth beyond the caches.\n"
      "Examples:\n  tandem bench -p 512 -n 128 -r 5\n"
      "  tandem bench -m model.gguf -p 0 -n 64 -npl 1,2,4,8 -ctk bf16,int8 -o jsonl\n"
      "  tandem bench -d 0,1024 -pg 512,128 -t 1-2 -o csv");
  verb->callback([options, &action] { action = [options] { return bench(*options); }; });
}

std::string bench_spelling(const std::string& argument) {
  const bool has_letters = argument.size() > 2 && argument[0] == '-' &&
                           std::all_of(argument.begin() + 1, argument.end(),
                                       [](unsigned char c) { return std::isalpha(c) != 0; });
  return has_letters ? "-" + argument : argument;
}

}  // namespace tandem
