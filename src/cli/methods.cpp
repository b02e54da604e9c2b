// tandem methods [MODEL]: what each method of compression costs a model and its off-grid twin.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/version.h"
#include "cli/model_options.h"
#include "cli/model_path.h"
#include "cli/study_variants.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "kernels/device.h"
#include "model/model.h"
#include "runtime/engine.h"
#include "study/evals/evaluate.h"
#include "study/export.h"
#include "study/methods_table.h"
#include "study/report.h"
#include "study/run.h"

namespace tandem {
namespace {

constexpr int64_t kMaxTaskTokens = 1024;  // of a context and its continuation
constexpr const char* kTwinVariant = "off-grid";

// In the order of the table; what a model's widths do not allow is left out and named.
constexpr const char* kMethods[] = {"bf16", "int8", "llm-int8", "fp8",  "int4 g32",
                                    "int4 g64", "int4 g128", "nf4", "q8_0", "q6_k",
                                    "q4_k", "q4_1", "q4_0"};

struct MethodFlags {
  std::string model, text, out = "studies/methods", hellaswag, isa;
  std::vector<std::string> methods, records;
  int64_t windows = 4, items = 40;
  int threads = 0;
  bool fresh = false, no_twin = false;
};

void say(const std::string& line) { write_stderr(line + "\n"); }

// Batch 1, KV bf16: enough for a figure of speed a method.
Profile methods_profile(const MethodFlags& flags) {
  Profile profile;
  profile.name = "methods";
  profile.kv = {"bf16"};
  profile.batches = {1};
  profile.prompt_tokens = 64;
  profile.new_tokens = 32;
  profile.num_warmups = 1;
  profile.num_runs = 3;
  profile.max_reruns = 1;
  profile.num_windows = flags.windows;
  profile.answer_tokens = 1;
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

// One model's part of the study: its variants, records and task scores, below a folder of its own.
class Sheet {
 public:
  Sheet(const MethodFlags& flags, std::filesystem::path model, std::string title,
        std::filesystem::path out)
      : flags_(flags), out_(std::move(out)), source_(load_checkpoint(model)),
        hash_(checkpoint_hash(source_)), pool_(chosen_threads(flags.threads)) {
    sheet_.title = std::move(title);
  }

  MethodSheet measure() {
    prepare();
    const StudyResult result = run_study(settings_, options());
    for (const std::string& failure : result.failures) say("failed: " + failure);
    if (!result.failures.empty()) {
      fail(ErrorKind::system, "{} of the tasks failed; the same command tries them again",
           result.failures.size());
    }
    for (const Variant& variant : settings_.variants) add_row(variant, result.records);
    return std::move(sheet_);
  }

  // The folder of the model's twin.
  std::filesystem::path twin() {
    return prepare_variants({kTwinVariant}, source_, hash_, cache_folder(), pool_, say)
        .front()
        .path;
  }

 private:
  void prepare() {
    std::vector<std::string> names = flags_.methods;
    if (names.empty()) names.assign(std::begin(kMethods), std::end(kMethods));
    if (std::ranges::find(names, kBaselineVariant) == names.end()) {
      names.insert(names.begin(), kBaselineVariant);
    }
    settings_.profile = methods_profile(flags_);
    for (std::string name : names) {
      if (const size_t dash = name.rfind("-g"); dash != std::string::npos) name[dash] = ' ';
      try {
        settings_.variants.push_back(
            prepare_variants({name}, source_, hash_, cache_folder(), pool_, say).front());
        settings_.profile.variants.push_back(name);
      } catch (const Error& error) {
        if (error.kind != ErrorKind::usage || !flags_.methods.empty()) throw;
        say(fmt::format("left out: {}: {}", name, error.what()));
      }
    }
    settings_.baseline_path = settings_.variants.front().path;
    settings_.model_path = source_.path;
    settings_.model_hash = hash_;
    settings_.text_path = flags_.text.empty() ? cache_folder() / "texts/developers-reference.txt"
                                              : std::filesystem::path(flags_.text);
    settings_.text_hash = hash_hex(std::as_bytes(MappedFile(settings_.text_path).bytes()));
    settings_.isa = chosen_isa(flags_.isa);
    settings_.threads = pool_.size();
    if (names_device(settings_.isa)) {
      settings_.processor = describe_device(settings_.isa).description();
    }
  }

  StudyOptions options() const {
    StudyOptions options;
    options.out_dir = out_;
    options.program = std::filesystem::read_symlink("/proc/self/exe").string();
    options.fresh = flags_.fresh;
    options.on_progress = [](const StudyProgress& progress) {
      if (progress.what.empty()) return;
      say(fmt::format("[{}/{}] {}{}", progress.done + 1, progress.total, progress.what,
                      progress.seconds_left < 0
                          ? ""
                          : fmt::format(", about {:.0f} s left", progress.seconds_left)));
    };
    return options;
  }

  void add_row(const Variant& variant, const std::vector<Record>& records) {
    for (const Record& record : records) {
      if (record.cell.variant != variant.name) continue;
      MethodRow row;
      row.method = variant.name;
      row.record = record;
      const Checkpoint made = load_checkpoint(variant.path);
      row.layer_bits = layer_bits(made);
      row.record.extra["layer_bits"] = row.layer_bits;
      if (!flags_.hellaswag.empty()) {
        row.hellaswag = hellaswag(made, record.study_id);
        row.record.extra["hellaswag"] = {{"acc_norm", row.hellaswag->mean},
                                         {"stderr", row.hellaswag->error},
                                         {"items", flags_.items}};
      }
      sheet_.rows.push_back(std::move(row));
      return;
    }
  }

  // Kept in a file a variant: a study that is stopped goes on where it was.
  MeanError hellaswag(const Checkpoint& made, const std::string& study_id) {
    const std::string file_hash = hash_hex(std::as_bytes(MappedFile(flags_.hellaswag).bytes()));
    const std::string key =
        hash_hex(fmt::format("{} {} {} {} {} {}", study_id, checkpoint_hash(made), file_hash,
                             flags_.items, settings_.isa, commit()));
    const std::filesystem::path kept = out_ / ("hellaswag-" + key.substr(0, 16) + ".json");
    if (!flags_.fresh && std::filesystem::exists(kept)) {
      const Json json = parse_json(read_text_file(kept, 1 << 20), kept.string());
      return {json.at("acc_norm").get<double>(), json.at("stderr").get<double>()};
    }
    say(made.path.filename().string() + ": HellaSwag");
    std::vector<TaskItem> items = read_task("hellaswag", flags_.hellaswag);
    if (std::ssize(items) > flags_.items) items.resize(static_cast<size_t>(flags_.items));
    const int64_t most = std::min(kMaxTaskTokens, made.config.max_context);
    const Model model(made, pool_, settings_.isa);
    Scorer scorer(model, KvType::bf16, most);
    const LogitSource source = [&](std::span<const int32_t> tokens, int64_t first,
                                   const auto& sink) { scorer.score(tokens, first, sink); };
    const TaskResult result =
        evaluate_task(source, Tokenizer(made.tokenizer), items, made.tokenizer.add_bos, most,
                      made.config.vocab_size, {});
    if (!result.acc_norm) {
      fail(ErrorKind::usage, "{}: items of one choice, expected HellaSwag's four",
           flags_.hellaswag);
    }
    write_file_atomic(kept, dump_json({{"acc_norm", result.acc_norm->mean},
                                       {"stderr", result.acc_norm->error}}));
    return *result.acc_norm;
  }

  const MethodFlags& flags_;
  const std::filesystem::path out_;
  const Checkpoint source_;
  const std::string hash_;
  ThreadPool pool_;
  StudySettings settings_;
  MethodSheet sheet_;
};

void write_results(const MethodFlags& flags, std::vector<MethodSheet> sheets) {
  std::vector<Record> elsewhere, all;
  for (const std::string& path : flags.records) {
    const std::vector<Record> read = read_records_jsonl(path);
    elsewhere.insert(elsewhere.end(), read.begin(), read.end());
  }
  for (MethodSheet& sheet : sheets) {
    add_speeds_elsewhere(elsewhere, &sheet.rows);
    for (const MethodRow& row : sheet.rows) all.push_back(row.record);
  }
  const std::filesystem::path out = flags.out;
  const std::string markdown = methods_markdown(sheets);
  write_file_atomic(out / "methods.md", markdown);
  write_file_atomic(out / "methods.html", methods_page(sheets));
  write_file_atomic(out / "records.jsonl", records_jsonl(all));
  write_stdout(markdown);
  say(fmt::format("table:   {}\npicture: {}\nrecords: {}", (out / "methods.md").string(),
                  (out / "methods.html").string(), (out / "records.jsonl").string()));
}

int run(const MethodFlags& flags) {
  const std::filesystem::path model = resolve_model_path(flags.model);
  const std::filesystem::path out = flags.out;
  std::filesystem::create_directories(out);
  std::vector<MethodSheet> sheets;
  Sheet first(flags, model, model.stem().string(), out / "model");
  sheets.push_back(first.measure());
  if (!flags.no_twin) {
    const std::string title = sheets.front().title + ", off-grid twin";
    sheets.push_back(Sheet(flags, first.twin(), title, out / "twin").measure());
  }
  write_results(flags, std::move(sheets));
  return 0;
}

}  // namespace

void add_methods(CLI::App& app, Action& action) {
  auto flags = std::make_shared<MethodFlags>();
  CLI::App* verb =
      app.add_subcommand("methods", "Print one table: what each method of compression costs");
  verb->add_option("MODEL,--model", flags->model,
                   "GGUF file or Hugging Face folder (default: the set-up's model)")
      ->type_name("PATH");
  verb->add_option("--methods", flags->methods, "Some of them, such as int8,int4-g64,nf4 (all)")
      ->delimiter(',')
      ->type_name("LIST");
  verb->add_option("--text", flags->text, "Prose for perplexity (default: the set-up's)")
      ->type_name("FILE");
  verb->add_option("--windows", flags->windows, "Windows of 512 tokens of it")
      ->capture_default_str()
      ->check(whole_number(1, kMaxCount))
      ->type_name("N");
  verb->add_option("--hellaswag", flags->hellaswag, "HellaSwag's items, as eval --task reads them")
      ->type_name("FILE");
  verb->add_option("--limit", flags->items, "Ask at most N of its items")
      ->capture_default_str()
      ->check(whole_number(1, kMaxCount))
      ->type_name("N");
  verb->add_option("--records", flags->records, "Records of other machines, for their speeds")
      ->type_name("FILE...");
  verb->add_option("-o,--out", flags->out, "Folder of the results")
      ->capture_default_str()
      ->type_name("DIR");
  verb->add_flag("--no-twin", flags->no_twin, "Leave the off-grid twin out");
  verb->add_flag("--fresh", flags->fresh, "Measure again what is there already");
  add_threads_option(*verb, flags->threads);
  add_isa_option(*verb, flags->isa);
  verb->footer(
      "The twin computes what the model computes with numbers that lie on no grid: a model that\n"
      "was quantized before costs nothing in its own grid. Stop it at any time: the same command\n"
      "goes on where it was.\n"
      "Examples:\n  tandem methods\n"
      "  tandem methods model-folder --methods int8,int4-g64,q4_k --hellaswag hellaswag_val.txt");
  verb->callback([flags, &action] { action = [flags] { return run(*flags); }; });
}

}  // namespace tandem
