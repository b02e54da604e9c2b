// The gate at the end of `tandem compress`: what it measures, what it allows, what it prints.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "compress/compress.h"
#include "study/evals/gate.h"

namespace tandem {

struct GateOptions {
  bool off = false;
  std::string text;  // empty: the set-up's
  int64_t windows = 8;
  std::vector<std::string> tasks;  // NAME or NAME=FILE
  int64_t task_limit = 200;        // items of a task
  std::optional<double> max_kl_divergence;
  std::optional<double> max_task_drop;  // percentage points
};

// --no-gate --gate-text --gate-windows --max-kld --tasks --task-limit --max-task-drop
void add_gate_options(CLI::App& verb, GateOptions& options);

class Gate {
 public:
  // Reads the texts and tasks, before a model is read. `calibration` is the text the recipe
  // calibrates on, empty where it does none; `device`, where not empty, runs both models. Throws usage for options that contradict and for a
  // text that shares lines with the calibration, bad_file for what cannot be read.
  Gate(const GateOptions& options, const std::string& calibration, const std::string& device);

  // Measures, adds "gate" to the manifest, throws quality_gate for a result that is not allowed.
  // What cannot be measured is said in one line on standard error, or thrown where a bound was
  // given. `progress` may throw.
  void judge(const Checkpoint& source, const std::filesystem::path& staged, ThreadPool& pool,
             Json* manifest, const EvalProgress& progress);
  // The figures of judge() for people; empty when nothing was measured.
  std::string text() const;
  double seconds() const { return seconds_; }  // that judge() took

 private:
  bool has_bound() const { return options_.max_kl_divergence || options_.max_task_drop; }
  void read_text(const std::string& calibration);
  void read_tasks();
  void check_bounds() const;
  Json to_json() const;

  const GateOptions options_;
  GatePlan plan_;
  std::string text_path_;
  std::string not_measured_;  // why
  GateFigures figures_;
  double seconds_ = 0;
};

}  // namespace tandem
