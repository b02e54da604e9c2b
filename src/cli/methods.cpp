// tandem methods [MODEL]: what each method of compression costs a model and its off-grid twin.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "cli/model_options.h"
#include "cli/model_path.h"
#include "cli/study_setup.h"
#include "cli/study_variants.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "kernels/device.h"
#include "study/evals/gate.h"
#include "study/export.h"
#include "study/methods_table.h"
#include "study/report.h"

namespace tandem {
namespace {

constexpr const char* kTwinVariant = "off-grid";
constexpr uint64_t kMaxTextBytes = uint64_t{64} << 20;

// In the order of the table; what a model's widths do not allow is left out and named.
constexpr const char* kMethods[] = {
    "bf16",         "int8",     "smoothquant", "llm-int8",       "fp8",
    "q8_0",         "int4 g64", "gptq g64",    "awq g64",        "hqq g64",
    "nf4",          "q4_k",     "q4_1",        "q4_0",           "random-24",
    "magnitude-24", "wanda",    "sparsegpt",   "sparsegpt-int4", "gqa-aligned"};

struct MethodFlags {
  std::string model, text, out = "studies/methods", hellaswag, isa;
  std::vector<std::string> methods, records, from;
  CalibrationOptions calibration = {.file = {}, .samples = 32};
  int64_t windows = 20, items = 200;
  int threads = 0, jobs = 1;
  bool fresh = false, no_twin = false, make_only = false;
};

void say(const std::string& line) { write_stderr(line + "\n"); }

// Batch 1, KV bf16: enough for a figure of speed a method.
Profile methods_profile(const MethodFlags& flags) {
  Profile profile;
  profile.name = "methods";
  profile.kv = {"bf16"};
  profile.batches = {1};
  profile.prompt_tokens = 64;
  profile.new_tokens = 64;
  profile.num_warmups = 1;
  profile.num_runs = 5;
  profile.max_reruns = 1;
  profile.num_windows = flags.windows;
  return profile;
}

double layer_bits(const Checkpoint& checkpoint) {
  double bytes = 0, elements = 0;
  for (const auto& [name, weight] : checkpoint.tensors) {
    if (!name.ends_with("_proj.weight")) continue;
    bytes += static_cast<double>(weight.total_bytes());
    elements += static_cast<double>(weight.N) * static_cast<double>(weight.K);
  }
  return 8 * bytes / elements;
}

// One model's part of the study: its variants and their records, below a folder of its own.
class Sheet {
 public:
  Sheet(const MethodFlags& flags, const std::filesystem::path& model, std::string title,
        std::filesystem::path out)
      : flags_(flags),
        title_(std::move(title)),
        out_(std::move(out)),
        source_(load_checkpoint(model)),
        hash_(checkpoint_hash(source_)),
        pool_(chosen_threads(flags.threads)),
        variants_(source_, hash_, cache_folder(), flags.calibration, pool_, say) {}

  // A record a method, in their order; none where they are only made. The twin's speeds are the
  // model's: shapes and encodings are.
  std::vector<Record> measure(bool with_speeds) {
    prepare();
    if (flags_.make_only) return {};
    if (!with_speeds) settings_.profile.batches.clear();
    const StudyResult result = run_study(settings_, options());
    const size_t num_failed = report_failures(result.failures);
    if (num_failed != 0) {
      fail(ErrorKind::system, "{} of the tasks failed; the same command tries them again",
           num_failed);
    }
    std::vector<Record> rows;
    for (const Variant& variant : settings_.variants) rows.push_back(row_of(variant, result));
    return rows;
  }

  // The folder of the model's twin.
  std::filesystem::path twin() { return variants_.get(kTwinVariant).path; }

 private:
  void prepare() {
    settings_.isa = chosen_isa(flags_.isa);
    if (names_device(settings_.isa)) {
      settings_.processor = describe_device(settings_.isa).description();
    }
    settings_.threads = pool_.size();
    settings_.profile = methods_profile(flags_);
    set_study_text(flags_.text, settings_);
    std::vector<std::string> names = flags_.methods;
    if (names.empty()) names.assign(std::begin(kMethods), std::end(kMethods));
    std::erase(names, kBaselineVariant);
    names.insert(names.begin(), kBaselineVariant);
    std::erase_if(names, [&](const std::string& name) {
      return !allows(name, [&] { variants_.check(name); });
    });
    check_texts();
    for (const std::string& name : names) {
      allows(name, [&] {
        settings_.variants.push_back(variants_.get(name));
        settings_.profile.variants.push_back(settings_.variants.back().name);
      });
    }
    settings_.baseline_path = settings_.variants.front().path;
    settings_.model_path = source_.path;
    settings_.model_hash = hash_;
    if (!flags_.hellaswag.empty()) {
      settings_.questions = TaskFile{"hellaswag", flags_.hellaswag, flags_.items};
      settings_.questions_hash = hash_hex(std::as_bytes(MappedFile(flags_.hellaswag).bytes()));
    }
  }

  // False for a method that this model or this machine does not allow, which is told; one that was
  // asked for by name must be.
  bool allows(const std::string& name, const std::function<void()>& use) const {
    try {
      use();
      return true;
    } catch (const Error& error) {
      const bool is_needed = !flags_.methods.empty() || name == kBaselineVariant;
      if (error.kind != ErrorKind::usage || is_needed) throw;
      say(fmt::format("left out: {}: {}", name, error.what()));
      return false;
    }
  }

  // A text that shares lines with the calibration's cannot judge what that has made.
  void check_texts() const {
    const std::filesystem::path other = variants_.calibration_text();
    if (other.empty()) return;
    const int64_t shared = num_shared_lines(read_text_file(settings_.text_path, kMaxTextBytes),
                                            read_text_file(other, kMaxTextBytes));
    if (shared == 0) return;
    fail(ErrorKind::usage,
         "{}: shares {} lines with the calibration's text {}; give another --text",
         quote(settings_.text_path.string(), 400), shared, quote(other.string(), 400));
  }

  StudyOptions options() const {
    StudyOptions options;
    options.out_dir = out_;
    options.program = program_path();
    options.fresh = flags_.fresh;
    options.num_jobs = flags_.jobs;
    options.on_progress = print_progress;
    return options;
  }

  // How many tasks failed that this processor should run.
  static size_t report_failures(const std::vector<TaskFailure>& failures) {
    size_t num_failed = 0;
    for (const TaskFailure& failure : failures) {
      if (failure.no_device && failure.variant != kBaselineVariant) continue;
      say("failed: " + failure.text());
      ++num_failed;
    }
    return num_failed;
  }

  Record row_of(const Variant& variant, const StudyResult& result) const {
    const auto measured = std::ranges::find_if(
        result.records, [&](const Record& record) { return record.cell.variant == variant.name; });
    Record row;
    if (measured != result.records.end()) {
      row = *measured;
    } else {
      row = result.records.front();
      row.cell.variant = variant.name;
      row.decode_tokens_per_second = {};
      row.prefill_tokens_per_second = {};
      row.first_token_seconds = {};
      row.quality = {};
      row.quality.perplexity = row.quality.perplexity_stderr = std::nan("");
      row.extra[kNotRunKey] = reason_of(variant.name, result.failures);
    }
    const Checkpoint made = load_checkpoint(variant.path);
    row.file_bytes = made.file_bytes;
    row.extra[kLayerBitsKey] = layer_bits(made);
    row.extra[kSheetKey] = title_;
    return row;
  }

  static std::string reason_of(const std::string& variant,
                               const std::vector<TaskFailure>& failures) {
    for (const TaskFailure& failure : failures) {
      if (failure.variant == variant) return failure.reason;
    }
    return "nothing was measured";
  }

  const MethodFlags& flags_;
  const std::string title_;
  const std::filesystem::path out_;
  const Checkpoint source_;
  const std::string hash_;
  ThreadPool pool_;
  VariantCache variants_;
  StudySettings settings_;
};

std::vector<Record> read_all(const std::vector<std::string>& paths) {
  std::vector<Record> all;
  for (const std::string& path : paths) {
    const std::vector<Record> read = read_records_jsonl(path);
    all.insert(all.end(), read.begin(), read.end());
  }
  return all;
}

std::vector<Record> measure(const MethodFlags& flags) {
  std::filesystem::path model = resolve_model_path(flags.model);
  if (!model.has_filename()) model = model.parent_path();
  const std::filesystem::path out = flags.out;
  std::filesystem::create_directories(out);
  const bool is_folder = std::filesystem::is_directory(model);
  const std::string title = (is_folder ? model.filename() : model.stem()).string();
  Sheet first(flags, model, title, out / "model");
  std::vector<Record> records = first.measure(/*with_speeds=*/true);
  if (!flags.no_twin && flags.windows != 0) {
    Sheet second(flags, first.twin(), title + ", off-grid twin", out / "twin");
    const std::vector<Record> twin = second.measure(/*with_speeds=*/false);
    records.insert(records.end(), twin.begin(), twin.end());
  }
  return records;
}

int run(const MethodFlags& flags) {
  const std::vector<Record> records = flags.from.empty() ? measure(flags) : read_all(flags.from);
  if (flags.make_only) return 0;
  std::vector<MethodSheet> sheets = method_sheets(records);
  add_speeds_elsewhere(read_all(flags.records), &sheets);
  const std::filesystem::path out = flags.out;
  std::filesystem::create_directories(out);
  write_file_atomic(out / "methods.md", methods_markdown(sheets));
  write_file_atomic(out / "methods.html", methods_page(sheets));
  write_file_atomic(out / "records.jsonl", records_jsonl(records));
  write_stdout(methods_text(sheets));
  say(fmt::format("table:   {}\npicture: {}\nrecords: {}", (out / "methods.md").string(),
                  (out / "methods.html").string(), (out / "records.jsonl").string()));
  return 0;
}

void add_measurement_options(CLI::App& verb, MethodFlags& flags) {
  add_study_options(verb, flags.model, flags.text, flags.fresh);
  verb.add_option("--methods", flags.methods,
                  "Some of them, such as int8,int4-g64,gptq-g128,mine.toml (all)")
      ->delimiter(',')
      ->type_name("LIST");
  verb.add_option("--windows", flags.windows, "Windows of 512 tokens of the text; 0: speeds alone")
      ->capture_default_str()
      ->check(whole_number(0, kMaxCount))
      ->type_name("N");
  verb.add_option("--hellaswag", flags.hellaswag, "HellaSwag's items, as eval --task reads them")
      ->check(CLI::ExistingFile.description(""))
      ->type_name("FILE");
  verb.add_option("--limit", flags.items, "Ask at most N of its items")
      ->capture_default_str()
      ->check(whole_number(1, kMaxCount))
      ->type_name("N");
  verb.add_option("--calibration", flags.calibration.file,
                  "Text or JSONL for methods that measure inputs (the set-up's text)")
      ->type_name("FILE");
  verb.add_option("--samples", flags.calibration.samples, "Rows of 512 tokens of it")
      ->capture_default_str()
      ->check(whole_number(1, kMaxCount))
      ->type_name("N");
  verb.add_option("--jobs", flags.jobs, "Judge N methods at once, the threads shared out")
      ->capture_default_str()
      ->check(whole_number(1, 256))
      ->type_name("N");
  verb.add_flag("--no-twin", flags.no_twin, "Leave the off-grid twin out");
  verb.add_flag("--make-only", flags.make_only,
                "Make what is missing in the cache, measure nothing");
  add_threads_option(verb, flags.threads);
  add_isa_option(verb, flags.isa);
}

}  // namespace

void add_methods(CLI::App& app, Action& action) {
  auto flags = std::make_shared<MethodFlags>();
  CLI::App* verb =
      app.add_subcommand("methods", "Print one table: what each method of compression costs");
  add_measurement_options(*verb, *flags);
  verb->add_option("--records", flags->records, "Records of other machines, for their speeds")
      ->check(CLI::ExistingFile.description(""))
      ->type_name("FILE");
  verb->add_option("--from", flags->from, "Print the table of these records; measure nothing")
      ->check(CLI::ExistingFile.description(""))
      ->type_name("FILE");
  verb->add_option("-o,--out", flags->out, "Folder of the results")
      ->capture_default_str()
      ->type_name("DIR");
  verb->footer(
      "The twin computes what the model computes with numbers that lie on no grid: a model that\n"
      "was quantized before costs nothing in its own grid. Stop it at any time: the same command\n"
      "goes on where it was.\n"
      "Examples:\n  tandem methods\n"
      "  tandem methods model-folder --methods int8,int4-g64,q4_k --hellaswag hellaswag_val.txt\n"
      "  tandem methods --from cpu.jsonl --records gpu.jsonl");
  verb->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace tandem
