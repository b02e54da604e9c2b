// tandem compress MODEL --recipe NAME -o DIR | FILE.gguf
#include "compress/compress.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"
#include "cli/model_options.h"
#include "cli/model_path.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

namespace tandem {
namespace {

struct CompressOptions {
  std::string model, recipe, out, format, device;
  int64_t group = 0;
  bool asymmetric = false, per_channel = false;
  int threads = 0;
};

// Thrown out of a progress call: the half-written folder goes away on the way up.
struct Interrupted {};

// One line that is rewritten on a terminal; elsewhere a line each ten seconds.
class ProgressLine {
 public:
  ~ProgressLine() { finish(); }

  void update(const CompressProgress& progress) {
    const int64_t now = now_ns();
    if (now - last_ns_ < (is_terminal_ ? kTerminalNs : kLogNs)) return;
    last_ns_ = now;
    const double share =
        static_cast<double>(progress.done_bytes) / static_cast<double>(progress.total_bytes);
    const double left = seconds_since(start_ns_) * (1 - share) / share;
    const std::string line = fmt::format("{:3.0f} %, {:.0f} s left", share * 100, left);
    write_stderr(is_terminal_ ? "\r\x1b[K" + line : line + "\n");
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

void print_result(const CompressOptions& options, const Recipe& recipe,
                  const CompressResult& result, double seconds) {
  std::string name = recipe.encoding.name();
  if (recipe.integers) {
    name = fmt::format("{} as {}", recipe.name, grid_layout_name(recipe.integers->layout));
  }
  fmt::print("{}: {} in {:.1f} s\n", options.out, name, seconds);
  fmt::print("before {:9.1f} MiB, {:5.2f} bits per weight\n", mib(result.source_bytes),
             bits_each(result.source_bytes, result.num_weights));
  fmt::print("after  {:9.1f} MiB, {:5.2f} bits per weight ({:.2f} in the layers' matrices)\n",
             mib(result.output_bytes), bits_each(result.output_bytes, result.num_weights),
             bits_each(result.layer_output_bytes, result.num_layer_weights));
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
  if (container == Container::hf_folder && is_grid_recipe(options.recipe, grid)) {
    return grid_recipe(options.recipe, grid);
  }
  if (options.asymmetric || options.per_channel) {
    fail(ErrorKind::usage,
         "--asymmetric and --per-channel: a GGUF file's encodings have their own, found {}",
         quote(options.recipe));
  }
  return recipe_from_name(options.recipe, options.group, container);
}

int run_compress(const CompressOptions& options) {
  if (!options.device.empty()) {
    fail(ErrorKind::no_device,
         "compress runs on the CPU, which reads each weight once; found --device {}. run, chat, "
         "eval, "
         "bench, study and info take it",
         options.device);
  }
  // The recipe first: a wrong name should not wait for a model to be read.
  const Recipe recipe = recipe_of(options);
  const Checkpoint source = load_checkpoint(resolve_model_path(options.model));
  ThreadPool pool(options.threads > 0 ? options.threads : usable_cpus());
  const int64_t start_ns = now_ns();
  ProgressLine line;
  const InterruptGuard guard;
  try {
    const auto write = recipe.container == Container::gguf ? compress_to_gguf : compress;
    const CompressResult result =
        write(source, recipe, options.out, pool, [&](const CompressProgress& progress) {
          if (InterruptGuard::interrupted()) throw Interrupted{};
          line.update(progress);
        });
    line.finish();
    print_result(options, recipe, result, seconds_since(start_ns));
    return 0;
  } catch (const Interrupted&) {
    return kExitInterrupted;
  }
}

}  // namespace

void add_compress(CLI::App& app, Action& action) {
  auto options = std::make_shared<CompressOptions>();
  CLI::App* verb = app.add_subcommand("compress", "Write a model with its layers in fewer bits");
  verb->add_option("MODEL", options->model, "GGUF file or Hugging Face folder")
      ->required()
      ->type_name("");
  verb->add_option("--recipe,--method", options->recipe,
                   "bf16; int8/4/3/2 llm-int8 fp8 nf4; GGUF f16 q8_0 q6_k q4_k q4_1 q4_0")
      ->required()
      ->type_name("NAME");
  verb->add_option("--group", options->group, "int*: weights of a row that share a scale (64)")
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("N");
  verb->add_flag("--asymmetric", options->asymmetric, "int*: a zero point beside each scale");
  verb->add_flag("--per-channel", options->per_channel, "int*: one scale a row");
  verb->add_option("-o,--out", options->out, "Folder, new or empty, or new GGUF file to write")
      ->required()
      ->type_name("PATH");
  verb->add_option("--format", options->format,
                   "hf, gguf; int*: gptq, gptq_v2, awq; default: gguf by PATH's end")
      ->check(CLI::IsMember({"hf", "gguf", "gptq", "gptq_v2", "awq"}).description(""))
      ->type_name("NAME");
  verb->add_option("--threads", options->threads, "Default: all CPUs this process may use")
      ->check(CLI::Range(1, 4096).description(""))
      ->type_name("N");
  add_device_option(*verb, options->device, "")->group("");
  verb->footer(
      "Examples:\n  tandem compress model.gguf --recipe int8 -o model-int8\n"
      "  tandem compress model.gguf --recipe int4 --group 32 -o model-int4\n"
      "  tandem compress model-folder --recipe q4_k -o model.Q4_K.gguf");
  verb->callback([options, &action] { action = [options] { return run_compress(*options); }; });
}

}  // namespace tandem
