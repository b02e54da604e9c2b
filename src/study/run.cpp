#include "study/run.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <future>
#include <limits>
#include <mutex>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "base/version.h"
#include "formats/checkpoint.h"
#include "study/child.h"
#include "study/evals/perplexity.h"
#include "study/export.h"
#include "study/meters/energy_point.h"
#include "study/record_store.h"
#include "study/task.h"
#include "text/tokenizer.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxTextBytes = uint64_t{64} << 20;
constexpr double kIdleSeconds = 2.2;
constexpr int64_t kRandomStarts = 64;  // of a sequence's prompts among the random ids

// One study at a time writes in a folder; the lock goes with the process.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& dir) {
    std::error_code error;
    std::filesystem::create_directories(dir, error);
    if (error) fail(ErrorKind::system, "{}: cannot create: {}", dir.string(), error.message());
    const std::filesystem::path path = dir / ".lock";
    file_ = open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (file_ < 0) fail(ErrorKind::system, "{}: {}", path.string(), std::strerror(errno));
    if (flock(file_, LOCK_EX | LOCK_NB) == 0) return;
    close(file_);
    fail(ErrorKind::system, "{}: another study is running in this folder; give another --out",
         dir.string());
  }
  ~FolderLock() { close(file_); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int file_ = -1;
};

struct PlannedTask {
  Task task;
  std::string name;   // for people
  double weight = 0;  // expected cost, any unit
};

int64_t most_batch(const Profile& profile) {
  if (profile.batches.empty()) return 1;
  return *std::max_element(profile.batches.begin(), profile.batches.end());
}

// Prompts for a model that knows no language: what the token ids are does not change its speed.
std::filesystem::path draw_tokens(const StudySettings& settings,
                                  const std::filesystem::path& out_dir) {
  const std::filesystem::path path =
      out_dir / fmt::format("tokens-random-{}-{}.i32", settings.random_vocabulary, settings.seed);
  Random random(settings.seed);
  std::vector<int32_t> tokens(static_cast<size_t>(settings.profile.prompt_tokens +
                                                  kRandomStarts * most_batch(settings.profile)));
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(random.below(static_cast<uint64_t>(settings.random_vocabulary)));
  }
  write_tokens(path, tokens);
  return path;
}

std::filesystem::path tokenize_text(const StudySettings& settings,
                                    const std::filesystem::path& out_dir) {
  const std::filesystem::path path = out_dir / ("tokens-" + settings.text_hash.substr(0, 16) + "-" +
                                                settings.model_hash.substr(0, 16) + ".i32");
  std::string text = read_text_file(settings.text_path, kMaxTextBytes);
  if (text.ends_with('\n')) text.pop_back();  // as llama.cpp's perplexity tool reads its file
  const Tokenizer tokenizer(load_checkpoint(settings.model_path).tokenizer);
  const std::vector<int32_t> tokens = tokenizer.encode(text);
  const int64_t needed =
      std::max(settings.profile.num_windows * kWindowTokens,
               settings.profile.prompt_tokens + 2 * most_batch(settings.profile));
  if (static_cast<int64_t>(tokens.size()) < needed) {
    fail(ErrorKind::usage, "{}: {} tokens, profile {} needs {}; give a longer --text",
         settings.text_path.string(), tokens.size(), settings.profile.name, needed);
  }
  write_tokens(path, tokens);
  return path;
}

std::string machine_name() {
  utsname names{};
  uname(&names);
  const auto pages = static_cast<double>(sysconf(_SC_PHYS_PAGES));
  const auto page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
  return fmt::format("{} {} {}, {} usable CPUs, {:.0f} GB memory", names.sysname, names.release,
                     names.machine, usable_cpus(), pages * page_bytes * 1e-9);
}

Record record_template(const StudySettings& settings, const std::string& id) {
  Record record;
  record.study_id = id;
  record.prompt_tokens = settings.profile.prompt_tokens;
  record.new_tokens = settings.profile.new_tokens;
  record.seed = settings.seed;
  record.threads = settings.threads;
  record.isa = settings.isa;
  record.quality.perplexity = std::numeric_limits<double>::quiet_NaN();  // until it is measured
  record.quality.perplexity_stderr = std::numeric_limits<double>::quiet_NaN();
  record.model_path = settings.model_path.string();
  record.model_hash = settings.model_hash;
  record.text_path = settings.text_path.string();
  record.text_hash = settings.text_hash;
  record.commit = commit();
  record.version = version();
  record.machine = machine_name();
  record.cpu = settings.processor.empty() ? cpu_features().model_name : settings.processor;
  record.compiler = compiler();
  record.extra = {{"profile", settings.profile.name},
                  {"num_warmups", settings.profile.num_warmups},
                  {"num_runs", settings.profile.num_runs}};
  if (!settings.processor.empty()) record.extra["host_cpu"] = cpu_features().model_name;
  if (settings.facts.is_object()) record.extra.update(settings.facts);
  return record;
}

Variant find_variant(const StudySettings& settings, const std::string& name) {
  for (const Variant& variant : settings.variants) {
    if (variant.name == name) return variant;
  }
  CHECK(name == kBaselineVariant, "no path for variant {}", name);
  return {name, settings.baseline_path};
}

// The variants whose quality is measured, the baseline before all.
std::vector<std::string> judged_variants(const StudySettings& settings) {
  if (settings.random_vocabulary != 0 || settings.profile.num_windows == 0) return {};
  std::vector<std::string> names = settings.profile.variants;
  std::erase(names, kBaselineVariant);
  names.insert(names.begin(), kBaselineVariant);
  return names;
}

// Quality first, the baseline's before all: then each cell's record is stored whole.
std::vector<PlannedTask> plan_tasks(const StudySettings& settings, const Record& base,
                                    const std::filesystem::path& tokens_path) {
  const Profile& profile = settings.profile;
  Task common;
  common.baseline = settings.baseline_path;
  common.tokens_path = tokens_path;
  common.num_warmups = profile.num_warmups;
  common.num_runs = profile.num_runs;
  common.max_reruns = profile.max_reruns;
  common.num_windows = profile.num_windows;
  common.answer_tokens = profile.answer_tokens;
  common.meter = settings.meter;
  common.energy = energy_windows(settings);
  common.record = base;

  std::vector<PlannedTask> tasks;
  const std::vector<std::string> names = judged_variants(settings);
  for (const std::string& name : names) {
    Task task = common;
    task.is_quality = true;
    task.checkpoint = find_variant(settings, name).path;
    task.is_baseline = name == kBaselineVariant;
    task.kv = profile.kv;
    if (settings.questions) task.questions = *settings.questions;
    if (task.is_baseline && std::ranges::find(task.kv, "bf16") == task.kv.end()) {
      task.kv.insert(task.kv.begin(), "bf16");
    }
    task.record.cell = {name, "", 0};
    const auto passes = static_cast<double>(task.kv.size() + (task.is_baseline ? 0 : 1));
    tasks.push_back({task, name + ", quality",
                     passes * static_cast<double>(profile.num_windows * kWindowTokens)});
  }
  for (const CellKey& cell : ordered_cells(profile, settings.seed)) {
    Task task = common;
    const Variant variant = find_variant(settings, cell.variant);
    task.checkpoint = variant.path;
    task.random = variant.random;
    task.record.cell = cell;
    task.record.extra["order"] = tasks.size() - names.size();
    const auto runs = static_cast<double>(profile.num_warmups + profile.num_runs);
    const auto tokens = static_cast<double>(profile.prompt_tokens + 3 * profile.new_tokens);
    tasks.push_back({task, fmt::format("{}, KV {}, batch {}", cell.variant, cell.kv, cell.batch),
                     300 + runs * tokens * static_cast<double>(cell.batch)});
  }
  return tasks;
}

bool is_stored(const RecordStore& store, const Task& task) {
  const Record& record = task.record;
  if (!task.is_quality) return store.contains(record.study_id, record.cell);
  return std::ranges::all_of(task.kv, [&](const std::string& kv) {
    return store.quality(record.study_id, record.cell.variant, kv).has_value();
  });
}

// Of a study without speeds: the quality of each variant and KV type, as records of batch 0.
std::vector<Record> quality_records(const StudySettings& settings, const Record& base,
                                    const RecordStore& store) {
  std::vector<Record> records;
  for (const std::string& variant : judged_variants(settings)) {
    for (const std::string& kv : settings.profile.kv) {
      const auto quality = store.quality(base.study_id, variant, kv);
      if (!quality) continue;
      Record record = base;
      record.cell = {variant, kv, 0};
      record.quality = *quality;
      records.push_back(std::move(record));
    }
  }
  return records;
}

// Power before anything is loaded; absent when there is no meter.
std::optional<double> idle_watts(const StudySettings& settings) {
  std::string reason;
  const auto meter = open_energy_meter(settings.meter, reason);
  if (meter == nullptr) return std::nullopt;
  const double seconds = std::max(kIdleSeconds, energy_windows(settings).idle_seconds);
  return measure_rest(*meter, seconds).watts();
}

// Stores what came of the task. Returns why it is no result; empty when it is one.
std::string store_result(const Task& task, const std::string& output, RecordStore& store) {
  const std::string& id = task.record.study_id;
  try {
    const Json result = parse_json(output, "the task's result");
    if (task.is_quality) {
      for (const auto& [kv, quality] : qualities_from_json(result)) {
        store.put_quality(id, task.record.cell.variant, kv, quality);
      }
      return "";
    }
    Record record = record_from_json(result);
    const auto quality = store.quality(id, record.cell.variant, record.cell.kv);
    if (quality) record.quality = *quality;
    store.insert(record);
    return "";
  } catch (const Error& error) {
    if (error.kind != ErrorKind::bad_file) throw;
    return error.what();
  }
}

// What is left of a study, worked off by one thread or several.
class Work {
 public:
  Work(std::vector<PlannedTask> tasks, const StudyOptions& options, RecordStore& store,
       StudyProgress progress, StudyResult& result)
      : tasks_(std::move(tasks)),
        options_(options),
        store_(store),
        progress_(std::move(progress)),
        result_(result) {
    for (const PlannedTask& planned : tasks_) weight_left_ += planned.weight;
  }

  // All tasks; those of quality stand first.
  void run() {
    const auto first_speed = static_cast<size_t>(
        std::ranges::find_if(tasks_, [](const PlannedTask& p) { return !p.task.is_quality; }) -
        tasks_.begin());
    run_until(first_speed, std::max(1, options_.num_jobs));
    run_until(tasks_.size(), 1);
    progress_.what.clear();
    progress_.seconds_left = 0;
    if (options_.on_progress) options_.on_progress(progress_);
  }

 private:
  void run_until(size_t end, int num_jobs) {
    const auto work = [&] {
      while (const PlannedTask* planned = take(end)) finish(*planned, run_one(*planned, num_jobs));
    };
    // A child dies with the thread that started it: each thread lives until its children have
    // ended.
    std::vector<std::future<void>> others;
    for (int i = 1; i < num_jobs; ++i) others.push_back(std::async(std::launch::async, work));
    work();
    for (std::future<void>& other : others) other.get();
  }

  // The next task before `end`; null when none is left.
  const PlannedTask* take(size_t end) {
    const std::lock_guard lock(mutex_);
    if (next_ >= end) return nullptr;
    PlannedTask& planned = tasks_[next_++];
    progress_.what = planned.name;
    if (weight_done_ > 0) {
      progress_.seconds_left = seconds_since(start_ns_) / weight_done_ * weight_left_;
    }
    if (options_.on_progress) options_.on_progress(progress_);
    Task& task = planned.task;
    const std::string& id = task.record.study_id;
    const auto baseline = store_.quality(id, kBaselineVariant, "bf16");
    if (baseline && !task.is_quality) {
      task.record.extra["baseline_perplexity"] = baseline->perplexity;
    }
    return &planned;
  }

  ChildResult run_one(const PlannedTask& planned, int num_jobs) const {
    Task task = planned.task;
    task.record.threads = std::max(1, task.record.threads / num_jobs);
    return run_child({options_.program, "study", "--cell-json", dump_json(to_json(task))});
  }

  void finish(const PlannedTask& planned, const ChildResult& child) {
    const std::lock_guard lock(mutex_);
    TaskFailure failure{planned.task.record.cell.variant, planned.name, {}, {}};
    if (!child.ok()) {
      failure.outcome = child.outcome();
      failure.reason = child.messages;
      while (failure.reason.ends_with('\n')) failure.reason.pop_back();
      failure.no_device = child.exited_with(exit_code(ErrorKind::no_device));
    } else {
      failure.outcome = store_result(planned.task, child.output, store_);
    }
    if (failure.outcome.empty()) {
      ++result_.num_measured;
    } else {
      result_.failures.push_back(std::move(failure));
    }
    weight_done_ += planned.weight;
    weight_left_ -= planned.weight;
    ++progress_.done;
  }

  std::vector<PlannedTask> tasks_;
  const StudyOptions& options_;
  RecordStore& store_;
  StudyProgress progress_;
  StudyResult& result_;
  const int64_t start_ns_ = now_ns();
  double weight_left_ = 0, weight_done_ = 0;
  size_t next_ = 0;
  std::mutex mutex_;  // of all but options
};

}  // namespace

std::string TaskFailure::text() const {
  return task + ": " + outcome + (reason.empty() ? "" : ": " + reason);
}

StudyResult run_study(const StudySettings& settings, const StudyOptions& options) {
  const FolderLock lock(options.out_dir);
  RecordStore store(options.out_dir / "records.sqlite");
  StudyResult result;
  result.study_id = study_id(settings);
  if (options.fresh) store.erase(result.study_id);

  const std::filesystem::path tokens_path = settings.random_vocabulary != 0
                                                ? draw_tokens(settings, options.out_dir)
                                                : tokenize_text(settings, options.out_dir);
  const Record base = record_template(settings, result.study_id);
  std::vector<PlannedTask> tasks = plan_tasks(settings, base, tokens_path);
  StudyProgress progress;
  progress.total = static_cast<int64_t>(tasks.size());
  std::erase_if(tasks, [&](const PlannedTask& planned) { return is_stored(store, planned.task); });
  result.num_found = progress.total - static_cast<int64_t>(tasks.size());
  progress.done = result.num_found;

  std::optional<double> idle;
  if (!tasks.empty()) idle = idle_watts(settings);
  for (PlannedTask& planned : tasks) planned.task.record.idle_watts = idle;
  Work(std::move(tasks), options, store, std::move(progress), result).run();

  result.records = settings.profile.batches.empty() ? quality_records(settings, base, store)
                                                    : store.load(result.study_id);
  write_file_atomic(options.out_dir / "records.jsonl", records_jsonl(result.records));
  write_file_atomic(options.out_dir / "records.csv", records_csv(result.records));
  return result;
}

}  // namespace tandem
