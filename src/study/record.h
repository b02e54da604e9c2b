// Record: one measured cell of a study, with everything needed to audit and repeat it. Records are
// the only bridge from measurement to reports and advice.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace tandem {

// One cell: a variant of a model, a KV type and a batch size.
struct CellKey {
  std::string variant;  // "as shipped", "bf16", "int8", "int4 g64"
  std::string kv;       // "bf16", "int8"
  int64_t batch = 1;
  auto operator<=>(const CellKey&) const = default;
};

// Samples of one quantity, in the order they were taken.
struct Samples {
  std::vector<double> values;
  double median() const;
  // (third quartile - first quartile) / median; 0 with fewer than two samples.
  double spread() const;
};

struct Quality {
  double perplexity = 0, perplexity_stderr = 0;
  std::optional<double> kl_divergence,
      kl_stderr;  // mean KL(bf16 || this), nats; absent for bf16 itself
  // ln(perplexity / bf16's): the mean difference of the same tokens' negative log-likelihoods, with
  // the error of that paired difference; absent for bf16 itself.
  std::optional<double> log_ratio, log_ratio_stderr;
  std::optional<double> top1_agreement;  // share of positions with bf16's most likely token
  int64_t scored_tokens = 0;
  std::vector<std::string> sample_answers;  // one for each of the study's prompts
  // Of the study's task an item each, '1' right, '0' wrong; absent: no task was asked.
  std::optional<std::string> task_hits;
};

struct Record {
  std::string study_id;  // names the settings: cells of one study share it
  CellKey cell;
  // settings
  int64_t prompt_tokens = 0;  // a sequence
  int64_t new_tokens = 0;     // a sequence
  uint64_t seed = 0;
  int threads = 0;
  std::string isa;
  std::vector<std::string> kernels;  // linear kernels that ran, with counts
  // throughput, tokens/s over all sequences of the batch
  Samples prefill_tokens_per_second;
  Samples decode_tokens_per_second;
  Samples first_token_seconds;  // from submit to the first token of the last sequence
  bool noisy = false;           // spread over 10 % after the reruns
  int reruns = 0;
  // memory, bytes
  uint64_t file_bytes = 0, weight_bytes = 0, kv_bytes = 0, workspace_bytes = 0,
           peak_resident_bytes = 0;  // on a GPU: of its memory
  uint64_t step_read_bytes = 0;  // weights a decode step reads
  // energy; absent: not measured, and energy_source says why
  std::optional<double> idle_watts;         // before anything was loaded
  std::optional<double> loaded_idle_watts;  // with the model in memory, around the window
  std::optional<double> mean_watts, joules_per_token;
  std::optional<double> dynamic_joules_per_token;  // above loaded_idle_watts
  std::string energy_source;  // "RAPL package", "command: ...", "not measured: no readable meter"
  Quality quality;
  // provenance
  std::string model_path, model_hash, text_path, text_hash;
  std::string commit, version, machine, cpu, compiler, started_at;  // ISO 8601 UTC
  double load_average = 0;                                          // when the cell started
  Json extra;  // further facts, printed in the manifest
};

// Whether the model was a shape with random weights: such a record has no quality.
bool has_random_weights(const Record& record);

// Both ways exact: numbers that JSON cannot hold become the strings "nan", "inf" and "-inf".
// Reading throws bad_file.
Json to_json(const Record& record);
Record record_from_json(const Json& json);
Json to_json(const Quality& quality);
Quality quality_from_json(const Json& json);

}  // namespace tandem
