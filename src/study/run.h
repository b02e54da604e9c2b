// Runs a study: each task in a child process, each result stored at once, whatever is stored
// skipped.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "study/plan.h"

namespace tandem {

struct StudyProgress {
  int64_t done = 0, total = 0;  // tasks, those found in the store counted as done
  std::string what;             // what runs now; empty at the end
  double seconds_left = -1;     // negative: not known yet
};

struct StudyOptions {
  std::filesystem::path out_dir;  // records.sqlite, records.jsonl, records.csv
  std::string program;            // run as PROGRAM study --cell-json DOCUMENT
  bool fresh = false;             // forget this study's earlier records
  // Quality is measured of so many variants at once, each with its share of the threads: what a
  // small model leaves idle of many CPUs. Speeds are measured alone, one after the other.
  int num_jobs = 1;
  std::function<void(const StudyProgress&)> on_progress;
};

struct TaskFailure {
  std::string variant;
  std::string task;     // "int8, KV bf16, batch 4"
  std::string outcome;  // "was killed by signal 9 (Killed)"
  std::string reason;   // what the child said last; may be empty
  bool no_device = false;  // the processor does not run this variant

  std::string text() const;  // all of it on a line
};

struct StudyResult {
  std::string study_id;
  std::vector<Record> records;  // the whole study's, earlier sessions included
  std::vector<TaskFailure> failures;
  int64_t num_measured = 0, num_found = 0;
};

// Throws system when another study runs in out_dir, usage when the text is too short.
StudyResult run_study(const StudySettings& settings, const StudyOptions& options);

}  // namespace tandem
