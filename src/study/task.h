// One task of a study as its child process gets it, and the results that come back: JSON both ways.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "study/evals/loglikelihood.h"
#include "study/meters/energy_point.h"
#include "study/random_model.h"
#include "study/record.h"

namespace tandem {

struct Task {
  bool is_quality = false;            // else speed, memory and energy of one cell
  std::filesystem::path checkpoint;   // the variant; its shape where weights are random
  std::optional<RandomWeights> random;
  std::filesystem::path baseline;     // quality: what it is compared with
  bool is_baseline = false;           // quality: the variant is the baseline itself
  std::filesystem::path tokens_path;  // int32 ids of the study's text
  std::vector<std::string> kv;        // quality: the KV types to measure
  TaskFile questions;                 // quality: asked with each of them; no name: none
  int num_warmups = 0, num_runs = 0, max_reruns = 0;
  int64_t num_windows = 0, answer_tokens = 0;
  MeterChoice meter;
  EnergyWindows energy;
  Record record;  // settings and provenance, to be completed
};

Json to_json(const Task& task);
Task task_from_json(const Json& json);  // throws usage

// Quality by KV type.
using QualityByKv = std::map<std::string, Quality>;
Json to_json(const QualityByKv& qualities);
QualityByKv qualities_from_json(const Json& json);  // throws bad_file

// Speed, memory and energy of the task's cell, measured in this process.
Record measure_speed(const Task& task);
// Perplexity, agreement with the baseline and sample answers for each of the task's KV types.
QualityByKv measure_quality(const Task& task);

// What the child process does: task document in, result document out.
std::string run_task(const std::string& task_json);

// "bf16", "int8", "fp8", "int4"; throws usage.
KvType kv_type_of(const std::string& name);

// The file of token ids between the study and its children.
void write_tokens(const std::filesystem::path& path, const std::vector<int32_t>& tokens);
std::vector<int32_t> read_tokens(const std::filesystem::path& path);

}  // namespace tandem
