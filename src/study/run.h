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
  std::function<void(const StudyProgress&)> on_progress;
};

struct StudyResult {
  std::string study_id;
  std::vector<Record> records;  // the whole study's, earlier sessions included
  std::vector<std::string>
      failures;  // "int8, KV bf16, batch 4: was killed by signal 9 (Killed): ..."
  int64_t num_measured = 0, num_found = 0;
};

// Throws system when another study runs in out_dir, usage when the text is too short.
StudyResult run_study(const StudySettings& settings, const StudyOptions& options);

}  // namespace tandem
