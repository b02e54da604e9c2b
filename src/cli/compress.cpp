// tandem compress MODEL --recipe NAME -o DIR | FILE.gguf
#include "compress/compress.h"

#include <fmt/format.h>
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "cli/gate.h"
#include "cli/model_options.h"
#include "cli/model_path.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "cli/pareto.h"
#include "compress/compress_steps.h"
#include "compress/mixed_recipe.h"
#include "kernels/device.h"
#include "formats/random_checkpoint.h"
#include "kernels/table.h"
#include "study/meters/energy.h"
#include "study/meters/memory.h"
#include "study/random_model.h"

namespace tandem {
namespace {

struct CompressOptions {
  std::string model, recipe, codebook, out, format, device, pareto, power_command;
  std::string random_weights;  // a shape in the place of a model
  int64_t group = 0, kv_heads = 0;
  bool asymmetric = false, per_channel = false;
  int threads = 0;
  GateOptions gate;
  CalibrationOptions calibration;
};

// Thrown out of a progress call: the half-written folder goes away on the way up.
struct Interrupted {};

// One line that is rewritten on a terminal; elsewhere a line each ten seconds.
class ProgressLine {
 public:
  ~ProgressLine() { finish(); }

  void update(const CompressProgress& progress) {
    update(static_cast<double>(progress.done_bytes) / static_cast<double>(progress.total_bytes));
  }
  // share: of the work that is done.
  void update(double share) {
    const int64_t now = now_ns();
    if (now - last_ns_ < (is_terminal_ ? kTerminalNs : kLogNs)) return;
    last_ns_ = now;
    if (!(share > 0)) return;
    const double left = seconds_since(start_ns_) * (1 - share) / share;
    const std::string line = fmt::format("{:3.0f} %, {:.0f} s left", share * 100, left);
    write_stderr(is_terminal_ ? "\r\x1b[K" + line : line + "\n");
    is_open_ = is_terminal_;
  }
  void update_gate(size_t done, size_t total) {
    if (is_terminal_) write_stderr(fmt::format("\r\x1b[Kgate {}/{}", done, total));
    is_open_ = is_terminal_;
  }
  void finish() {
    if (is_open_) write_stderr("\r\x1b[K");
    is_open_ = false;
  }

 private:
  static constexpr int64_t kTerminalNs = 100'000'000, kLogNs = 10'000'000'000;
  const bool is_terminal_ = stderr_is_terminal();
  const int64_t start_ns_ = now_ns();
  int64_t last_ns_ = start_ns_;
  bool is_open_ = false;  // the terminal shows a line without an end
};

double mib(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

double bits_each(uint64_t bytes, uint64_t elements) {
  return elements == 0 ? 0.0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(elements);
}

std::string description(const Recipe& recipe) {
  return recipe.integers
             ? fmt::format("{} as {}", recipe.name, grid_layout_name(recipe.integers->layout))
             : recipe.encoding.name();
}

void print_result(const CompressOptions& options, const std::string& recipe,
                  const CompressResult& result, const Gate& gate, double seconds) {
  fmt::print("{}: {} in {:.1f} s\n", options.out, recipe, seconds);
  fmt::print("before {:9.1f} MiB, {:5.2f} bits per weight\n", mib(result.source_bytes),
             bits_each(result.source_bytes, result.num_weights));
  fmt::print("after  {:9.1f} MiB, {:5.2f} bits per weight ({:.2f} in the layers' matrices)\n",
             mib(result.output_bytes), bits_each(result.output_bytes, result.num_weights),
             bits_each(result.layer_output_bytes, result.num_layer_weights));
  fmt::print("errors of {} matrices, relative, the worst:\n", result.errors.size());
  for (const MatrixError& error : worst_errors(result.errors, 5)) {
    fmt::print("       {:.5f} {}\n", error.relative_error, error.name);
  }
  fmt::print("{}", gate.text());
  for (const std::string& note : result.notes) fmt::print("note: {}\n", note);
}

Container container_of(const CompressOptions& options) {
  const bool named_gguf = std::filesystem::path(options.out).extension() == ".gguf";
  const bool is_gguf = options.format.empty() ? named_gguf : options.format == "gguf";
  return is_gguf ? Container::gguf : Container::hf_folder;
}

Recipe recipe_of(const CompressOptions& options) {
  const GridOptions grid{options.format, options.group, options.asymmetric, options.per_channel};
  const Container container = container_of(options);
  const bool wants_codebook = options.recipe == "codebook";
  if (wants_codebook == options.codebook.empty()) {
    fail(ErrorKind::usage, "recipe {}: {} --codebook FILE", options.recipe,
         wants_codebook ? "needs" : "has no use for");
  }
  if (container == Container::hf_folder && is_grid_recipe(options.recipe, grid)) {
    if (options.kv_heads != 0) {
      fail(ErrorKind::usage, "recipe {}: leaves KV heads as they are, found --kv-heads {}",
           quote(options.recipe), options.kv_heads);
    }
    return grid_recipe(options.recipe, grid);
  }
  if (options.asymmetric || options.per_channel) {
    fail(ErrorKind::usage,
         "--asymmetric and --per-channel: a GGUF file's encodings have their own, found {}",
         quote(options.recipe));
  }
  Recipe recipe =
      recipe_from_name(options.recipe, options.group, container, options.kv_heads);
  if (wants_codebook) recipe.codebook = read_codebook(options.codebook);
  return recipe;
}

Checkpoint load_source(const CompressOptions& options, ThreadPool& pool) {
  if (options.random_weights.empty()) return load_checkpoint(resolve_model_path(options.model));
  Checkpoint source = make_random_model(options.random_weights, {"bf16"}, nullptr, pool);
  source.tokenizer = byte_tokenizer(source.config.vocab_size);
  return source;
}

CalibrationRows read_rows(const CompressOptions& options, const Checkpoint& source) {
  CalibrationOptions calibration = options.calibration;
  const bool draws = source.is_random && calibration.file.empty();
  if (draws) return random_rows_of_ids(calibration, source.config.vocab_size);
  if (calibration.file.empty()) calibration.file = default_calibration_text();
  return read_calibration(calibration, Tokenizer(source.tokenizer));
}

void show(const CalibrationRows& rows, uint64_t activation_bytes) {
  fmt::print("calibration {}: {} rows of {} tokens, seed {}, {:.0f} MiB of activations\n",
             rows.source, rows.num(), rows.length, rows.seed, mib(activation_bytes));
  std::fflush(stdout);
}

void refuse_calibration(const CompressOptions& options, bool takes_seed) {
  const CalibrationOptions &given = options.calibration, none;
  if (given.file.empty() && given.samples == none.samples && given.length == none.length &&
      (takes_seed || given.seed == none.seed)) {
    return;
  }
  fail(ErrorKind::usage,
       "recipe {}: measures no inputs, found --calibration, --samples, --length or --seed",
       options.recipe);
}

double joules_of(const MeterChoice& choice, const std::function<void()>& work) {
  std::string reason;
  const auto meter = open_energy_meter(choice, reason);
  if (meter != nullptr) {
    meter->start();
    work();
    const EnergyReading reading = meter->stop();
    if (reading.joules) return *reading.joules;
    reason = reading.reason;
  }
  fail(ErrorKind::no_device, "mixed: a budget in millijoules needs a meter of energy: {}", reason);
}

// Chooses the bits of a recipe with a [mixed] table and shows what there was to choose from.
void allocate(const CompressOptions& options, const Checkpoint& source, const CalibrationRows& rows,
              ThreadPool& pool, StepRecipe* recipe, ProgressLine* line) {
  const auto joules = [&](const std::function<void()>& work) {
    return joules_of({options.power_command, ""}, work);
  };
  const MixedChoice choice =
      allocate_bits(recipe, source, rows, best_isa(), pool, joules, [&](double share) {
        if (InterruptGuard::interrupted()) throw Interrupted{};
        line->update(share);
      });
  line->finish();
  const bool is_kl = choice.measure == SensitivityMeasure::kl;
  const ParetoAxes axes{choice.unit, is_kl ? "sum of KL, nats" : "sum of relative output errors",
                        num_layer_weights(source.config)};
  const Allocation& chosen = choice.curve[choice.chosen];
  fmt::print("{}", pareto_table(choice.curve, chosen, axes));
  std::fflush(stdout);
  if (!options.pareto.empty()) {
    write_file_atomic(options.pareto, pareto_svg(choice.curve, chosen, axes));
  }
}

// The gate as compress calls it; the arguments must outlive the call.
Judge judge_of(Gate& gate, const Checkpoint& source, ThreadPool& pool, ProgressLine& line) {
  return [&](const std::filesystem::path& staged, Json* manifest) {
    gate.judge(source, staged, pool, manifest, [&](size_t done, size_t total) {
      if (InterruptGuard::interrupted()) throw Interrupted{};
      line.update_gate(done, total);
    });
  };
}

// Matrices of the same sizes come and go with every layer: their memory is kept, or each would be
// cleared by the system anew, page by page.
void keep_freed_memory() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

int run_steps(const CompressOptions& options) {
  keep_freed_memory();
  StepRecipe recipe = read_step_recipe(options.recipe);
  if (container_of(options) == Container::gguf || options.group != 0 || options.asymmetric ||
      options.per_channel) {
    fail(ErrorKind::usage,
         "recipe {}: writes a folder, and its grid is set in a recipe file; found {}", recipe.name,
         container_of(options) == Container::gguf ? "a GGUF file as output"
                                                  : "--group, --asymmetric or --per-channel");
  }
  if (!options.format.empty()) {
    set_format(&recipe, options.format == "hf" ? "compressed-tensors" : options.format);
  }
  std::shared_ptr<Device> device;
  std::unique_ptr<FloatWork> work;
  if (!options.device.empty()) {
    device = open_device(options.device);
    work = make_float_work(*device);
  }
  ThreadPool pool(options.threads > 0 ? options.threads : usable_cpus());
  const Checkpoint source = load_source(options, pool);
  const int64_t start_ns = now_ns();
  std::optional<CalibrationRows> rows;
  const Steps steps = make_steps(recipe, source.config);
  if (recipe.mixed || needs_inputs(steps)) {
    rows = read_rows(options, source);
    show(*rows, recipe.mixed ? calibration_bytes(source.config, *rows)
                             : calibration_bytes(source.config, steps, *rows));
  } else {
    refuse_calibration(options, /*takes_seed=*/false);
  }
  Gate gate(options.gate, rows ? rows->source : "", options.device);
  ProgressLine line;
  const InterruptGuard guard;
  try {
    if (recipe.mixed) allocate(options, source, *rows, pool, &recipe, &line);
    const CompressResult result =
        compress_by_steps(source, recipe, rows ? &*rows : nullptr, options.out, pool,
                          [&](const SequentialProgress& progress) {
                            if (InterruptGuard::interrupted()) throw Interrupted{};
                            line.update(progress.share);
                          },
                          judge_of(gate, source, pool, line), work.get());
    line.finish();
    print_result(options, recipe.name, result, gate, seconds_since(start_ns) - gate.seconds());
    fmt::print("peak memory {:.0f} MiB, the source's mapped pages included\n",
               mib(peak_resident_bytes()));
    if (work != nullptr) {
      fmt::print("{}: {}, {:.0f} MiB of its memory at most\n", device->name(),
                 device->description(), mib(work->peak_bytes()));
    }
    return 0;
  } catch (const Interrupted&) {
    return kExitInterrupted;
  }
}

int run_compress(CompressOptions options) {
  if (options.model.empty() == options.random_weights.empty()) {
    fail(ErrorKind::usage, "compress: {} MODEL or --random-weights FILE",
         options.model.empty() ? "needs" : "takes either");
  }
  if (!options.random_weights.empty() && !options.gate.off) {
    options.gate.off = true;
    write_stderr("gate: not measured, random weights have no quality to lose\n");
  }
  // A GGUF file holds HQQ's real minimums: there it is an encoding, not a step.
  const bool is_hqq_file = options.recipe == "hqq" && container_of(options) == Container::gguf;
  if (!is_hqq_file && names_step_recipe(options.recipe)) return run_steps(options);
  if (!options.device.empty()) require_isa(options.device);
  // The recipe first: a wrong name should not wait for a model to be read.
  Recipe recipe = recipe_of(options);
  recipe.seed = options.calibration.seed;
  // Heads are merged by their weights alone unless a text is named.
  const bool measures = recipe.kv_heads != 0 && !options.calibration.file.empty();
  if (!measures) {
    refuse_calibration(options, recipe.off_grid || recipe.pruning == Pruning::random ||
                                    recipe.aligns_heads);
  }
  ThreadPool pool(options.threads > 0 ? options.threads : usable_cpus());
  const Checkpoint source = load_source(options, pool);
  const int64_t start_ns = now_ns();
  std::optional<CalibrationRows> rows;
  if (measures) {
    rows = read_rows(options, source);
    show(*rows, calibration_bytes(source.config, *rows));
  }
  Gate gate(options.gate, rows ? rows->source : "", options.device);
  ProgressLine line;
  const InterruptGuard guard;
  try {
    const auto show = [&](const CompressProgress& progress) {
      if (InterruptGuard::interrupted()) throw Interrupted{};
      line.update(progress);
    };
    const Judge judge = judge_of(gate, source, pool, line);
    const CompressResult result =
        recipe.container == Container::gguf
            ? compress_to_gguf(source, recipe, options.out, pool, show, judge)
            : compress(source, recipe, options.out, pool, show, judge, rows ? &*rows : nullptr);
    line.finish();
    print_result(options, description(recipe), result, gate,
                 seconds_since(start_ns) - gate.seconds());
    return 0;
  } catch (const Interrupted&) {
    return kExitInterrupted;
  }
}

}  // namespace

void add_compress(CLI::App& app, Action& action) {
  auto options = std::make_shared<CompressOptions>();
  CLI::App* verb = app.add_subcommand("compress", "Write a model with its layers in fewer bits");
  verb->add_option("MODEL", options->model, "GGUF file or Hugging Face folder")->type_name("");
  verb->add_option("--random-weights", options->random_weights,
                   "A shape of data/models with random weights, in the place of MODEL")
      ->type_name("FILE");
  verb->add_option("--recipe,--method", options->recipe,
                   "REQUIRED: a name (see below) or a TOML file of steps (docs/recipes.md)")
      ->required()
      ->option_text("NAME|FILE");
  verb->add_option("--group", options->group,
                   "int*, nf4, fp4, codebook: weights that share a scale (64)")
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("N");
  verb->add_option("--codebook", options->codebook,
                   "codebook: 16 numbers from -1 to 1, for a group's largest")
      ->type_name("FILE");
  verb->add_flag("--asymmetric", options->asymmetric, "int*: a zero point beside each scale");
  verb->add_flag("--per-channel", options->per_channel, "int*: one scale a row");
  verb->add_option("--kv-heads", options->kv_heads, "gqa-mean, gqa-aligned: KV heads to leave")
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("N");
  verb->add_option("-o,--out", options->out, "Folder, new or empty, or new GGUF file to write")
      ->required()
      ->type_name("PATH");
  verb->add_option("--format", options->format,
                   "hf, gguf; int*: gptq, gptq_v2, awq; 2:4: sparse-24-bitmask; or by PATH")
      ->check(CLI::IsMember({"hf", "gguf", "gptq", "gptq_v2", "awq", "sparse-24-bitmask"})
                  .description(""))
      ->type_name("NAME");
  verb->add_option("--calibration", options->calibration.file,
                   "Text or JSONL for recipes that measure inputs (the set-up's text)")
      ->type_name("FILE");
  verb->add_option("--samples", options->calibration.samples, "Rows of calibration text (128)")
      ->check(CLI::Range(1, 1 << 20).description(""))
      ->type_name("N");
  verb->add_option("--length", options->calibration.length, "Tokens of a row (512)")
      ->check(CLI::Range(1, 1 << 20).description(""))
      ->type_name("N");
  verb->add_option("--seed", options->calibration.seed,
                   "Of the rows' choice, random masks and off-grid's factors (0)")
      ->check(seed_number())
      ->type_name("N");
  verb->add_option("--pareto", options->pareto, "Draw a [mixed] recipe's curve in this SVG file")
      ->type_name("FILE");
  // For a [mixed] recipe in millijoules, where the processor does not count its energy.
  verb->add_option("--power-command", options->power_command, "")->group("");
  add_gate_options(*verb, options->gate);
  verb->add_option("--threads", options->threads, "Default: all CPUs this process may use")
      ->check(CLI::Range(1, 4096).description(""))
      ->type_name("N");
  add_device_option(*verb, options->device,
                    "cuda or cuda:N: calibration, GPTQ and the gate run there");
  verb->footer(
      "Recipes, by weights alone: bf16 f32 int8 llm-int8 int4 int3 int2 fp8 fp8-tensor fp8-block\n"
      "fp8-deepseek nf4 nf4-dq fp4 fp4-dq codebook sparse-24 magnitude-24 random-24 gqa-mean\n"
      "gqa-aligned off-grid off-grid-f32; in GGUF: bf16 f16 q8_0 q6_k q4_k q4_1 q4_0 hqq; over text:\n"
      "rtn gptq awq hqq fp8-static smoothquant wanda sparsegpt[-int4|-int8|-fp8] learned-mask FILE.toml\n"
      "Examples:\n  tandem compress model.gguf --recipe int4 --group 32 -o model-int4 --max-kld 0.1\n"
      "  tandem compress model-folder --recipe q4_k -o model.Q4_K.gguf");
  verb->callback([options, &action] { action = [options] { return run_compress(*options); }; });
}

}  // namespace tandem
