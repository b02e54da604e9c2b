#include "cli/gate.h"

#include <cmath>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "cli/model_options.h"
#include "cli/model_path.h"
#include "cli/terminal.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxTextBytes = uint64_t{1} << 30;

Json figure(const MeanError& value) { return {{"value", value.mean}, {"stderr", value.error}}; }

// The source's perplexity: the paired difference takes its logarithm back.
double source_perplexity(const TextResult& text) {
  return text.perplexity.mean / std::exp(text.log_ratio->mean);
}

// In percent, with the error of the paired difference.
MeanError perplexity_change(const TextResult& text) {
  const double ratio = std::exp(text.log_ratio->mean);
  return {100 * (ratio - 1), 100 * ratio * text.log_ratio->error};
}

}  // namespace

void add_gate_options(CLI::App& verb, GateOptions& options) {
  verb.add_flag("--no-gate", options.off, "Do not compare the result with the source");
  verb.add_option("--gate-text", options.text, "Text to compare on (the set-up's)")
      ->type_name("FILE");
  verb.add_option("--gate-windows", options.windows, "At most N windows of 512 tokens of it (8)")
      ->check(whole_number(1, kMaxCount))
      ->type_name("N");
  verb.add_option("--max-kld", options.max_kl_divergence,
                  "Keep nothing and exit 6 above this KL divergence, nats a token")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("X");
  verb.add_option("--tasks", options.tasks, "Tasks to compare on: NAME=FILE, as eval reads them")
      ->type_name("NAME=FILE...");
  verb.add_option("--task-limit", options.task_limit, "Ask at most N items of each task (200)")
      ->check(whole_number(1, kMaxCount))
      ->type_name("N");
  verb.add_option("--max-task-drop", options.max_task_drop,
                  "Keep nothing and exit 6 when a task may drop by more points, at 95 %")
      ->check(CLI::NonNegativeNumber.description(""))
      ->option_text("X")
      ->needs("--tasks");
}

Gate::Gate(const GateOptions& options, const std::string& calibration, const std::string& device)
    : options_(options) {
  if (options_.off) {
    if (has_bound() || !options_.tasks.empty() || !options_.text.empty()) {
      fail(ErrorKind::usage, "--no-gate contradicts --max-kld, --tasks and --gate-text");
    }
    not_measured_ = "--no-gate";
    return;
  }
  plan_.isa = chosen_isa(device);
  plan_.num_windows = options_.windows;
  read_text(calibration);
  read_tasks();
}

void Gate::read_text(const std::string& calibration) {
  text_path_ = options_.text.empty() ? (cache_folder() / "texts/developers-reference.txt").string()
                                     : options_.text;
  if (options_.text.empty() && !std::filesystem::exists(text_path_)) {
    const std::string why = text_path_ + ": no such text; give one with --gate-text FILE";
    if (options_.max_kl_divergence) fail(ErrorKind::usage, "--max-kld: {}", why);
    not_measured_ = why;
    return;
  }
  plan_.text = read_text_file(text_path_, kMaxTextBytes);
  if (plan_.text.empty()) fail(ErrorKind::usage, "{}: is empty", quote(text_path_, 400));
  if (calibration.empty()) return;
  const std::string other = read_text_file(calibration, kMaxTextBytes);
  const bool same = hash_hex(other) == hash_hex(plan_.text);
  const int64_t shared = num_shared_lines(plan_.text, other);
  if (!same && shared == 0) return;
  fail(ErrorKind::usage,
       "{}: {} the calibration's text {}, which cannot judge the result; give another with "
       "--gate-text or --no-gate",
       quote(text_path_, 400), same ? "is" : fmt::format("shares {} lines with", shared),
       quote(calibration, 400));
}

void Gate::read_tasks() {
  for (const std::string& given : options_.tasks) {
    const size_t equals = given.find('=');
    const std::string name = given.substr(0, equals);
    const std::filesystem::path file =
        equals == std::string::npos ? cache_folder() / "tasks" / (name + ".jsonl")
                                    : std::filesystem::path(given.substr(equals + 1));
    if (name.empty() || file.empty() || !std::filesystem::exists(file)) {
      fail(ErrorKind::usage, "--tasks: found {}, expected NAME=FILE; no file {}", quote(given),
           quote(file.string(), 400));
    }
    GateTask task{name, read_task(name, file.string())};
    if (task.items.empty()) fail(ErrorKind::usage, "--tasks: {} has no items", quote(given));
    if (std::ssize(task.items) > options_.task_limit) {
      task.items.resize(static_cast<size_t>(options_.task_limit));
    }
    plan_.tasks.push_back(std::move(task));
  }
}

void Gate::judge(const Checkpoint& source, const std::filesystem::path& staged, ThreadPool& pool,
                 Json* manifest, const EvalProgress& progress) {
  const int64_t start_ns = now_ns();
  if (!plan_.text.empty() || !plan_.tasks.empty()) {
    try {
      figures_ = measure_gate(source, load_checkpoint(staged), plan_, pool, progress);
    } catch (const Error& error) {
      const bool is_limit = error.kind == ErrorKind::usage || error.kind == ErrorKind::no_memory ||
                            error.kind == ErrorKind::no_device;
      if (!is_limit || has_bound()) throw;
      not_measured_ = error.what();
    }
  }
  if (!options_.off && !figures_.text) {
    write_stderr("gate: KL divergence, agreement and perplexity are not measured: " +
                 not_measured_ + "\n");
  }
  seconds_ = seconds_since(start_ns);
  (*manifest)["gate"] = to_json();
  check_bounds();
}

void Gate::check_bounds() const {
  if (figures_.text) {
    const double kl = figures_.text->kl_divergence->mean;
    if (!std::isfinite(kl)) {
      fail(ErrorKind::quality_gate, "gate: KL divergence is {}, nothing was kept", kl);
    }
    if (options_.max_kl_divergence && kl > *options_.max_kl_divergence) {
      fail(ErrorKind::quality_gate,
           "gate: KL divergence is {:.5f} nats a token, --max-kld allows {}; nothing was kept", kl,
           *options_.max_kl_divergence);
    }
  }
  for (const TaskDrop& task : figures_.tasks) {
    if (!options_.max_task_drop || 100 * task.upper <= *options_.max_task_drop) continue;
    fail(ErrorKind::quality_gate,
         "gate: {} drops by {:.2f} points of {} items, by up to {:.2f} at 95 %, --max-task-drop "
         "allows {}; nothing was kept",
         task.name, 100 * task.drop, task.num_items, 100 * task.upper, *options_.max_task_drop);
  }
}

Json Gate::to_json() const {
  if (!figures_.text && figures_.tasks.empty()) return {{"not_measured", not_measured_}};
  Json json = {{"isa", plan_.isa}, {"kv", kv_type_name(plan_.kv_type)}, {"seconds", seconds_}};
  if (const auto& text = figures_.text) {
    json["text"] = text_path_;
    json["text_hash"] = hash_hex(plan_.text);
    json["protocol"] = "B";
    json["windows"] = text->num_windows;
    json["scored_tokens"] = text->num_scored;
    json["kl_divergence"] = figure(*text->kl_divergence);
    json["top1_agreement"] = figure(*text->top1_agreement);
    json["source_perplexity"] = source_perplexity(*text);
    json["perplexity"] = figure(text->perplexity);
    json["log_ratio"] = figure(*text->log_ratio);
  } else {
    json["text_not_measured"] = not_measured_;
  }
  if (options_.max_kl_divergence) json["max_kl_divergence"] = *options_.max_kl_divergence;
  if (options_.max_task_drop) json["max_task_drop"] = *options_.max_task_drop;
  for (const TaskDrop& task : figures_.tasks) {
    json["tasks"].push_back({{"name", task.name},
                             {"items", task.num_items},
                             {"source", task.source},
                             {"result", task.result},
                             {"drop", task.drop},
                             {"upper_95", task.upper}});
  }
  return json;
}

std::string Gate::text() const {
  std::string out;
  if (const auto& text = figures_.text) {
    const MeanError change = perplexity_change(*text);
    out += fmt::format("gate   {} windows of 512 tokens of {}, {} scored, {:.1f} s\n",
                       text->num_windows,
                       std::filesystem::path(text_path_).filename().string(), text->num_scored,
                       seconds_);
    out += fmt::format("       KL {:.5f} +- {:.5f} nats a token, top-1 {:.2f} +- {:.2f} %\n",
                       text->kl_divergence->mean, text->kl_divergence->error,
                       100 * text->top1_agreement->mean, 100 * text->top1_agreement->error);
    out += fmt::format("       perplexity {:.4f}, was {:.4f}: {:+.2f} +- {:.2f} %\n",
                       text->perplexity.mean, source_perplexity(*text), change.mean, change.error);
  }
  for (const TaskDrop& task : figures_.tasks) {
    out += fmt::format("       {} {:.2f} %, was {:.2f}: drop {:.2f} points, at most {:.2f} at 95 % "
                       "({} items)\n",
                       task.name, 100 * task.result, 100 * task.source, 100 * task.drop,
                       100 * task.upper, task.num_items);
  }
  return out;
}

}  // namespace tandem
