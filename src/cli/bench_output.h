// Rows of `tandem bench` -> llama-bench's output formats: its keys first, in its order, then ours.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "study/step_bench.h"

namespace tandem {

struct BenchRow {
  std::string model_path, model_type;
  uint64_t model_bytes = 0, model_parameters = 0;
  int64_t n_batch = 0, n_ubatch = 0;
  int threads = 0;
  std::string kv, isa;
  std::string kernels;  // of the linears, with counts
  StepTest test;
  StepTiming timing;
  std::string started_at;                             // UTC, ISO 8601
  std::optional<double> read_limit_bytes_per_second;  // none: not known
  std::string read_limit_source;
  // A GPU's; empty on the host.
  std::string device, gemm_library;
  std::string energy_source;         // the meter, or why there is no energy; empty: not asked for
  std::optional<double> idle_watts;  // before anything was loaded
  std::optional<EnergyPoint> energy;
};

// Prints rows as they come; `finish` ends a document that needs an end.
class BenchPrinter {
 public:
  // csv, json, jsonl, md or sql; with columns of energy in md. Throws usage.
  BenchPrinter(const std::string& format, bool with_energy);

  std::string header() const;
  std::string row(const BenchRow& row);
  std::string footer() const;

 private:
  enum class Format : uint8_t { csv, json, jsonl, md, sql };
  Format format_;
  bool with_energy_;
  bool has_rows_ = false;
};

// "128", "128,256", "64-256*2", "1-8", "1-8+2": llama-bench's lists. Throws usage naming `flag` on
// anything else, and on a number below `least`.
std::vector<int64_t> parse_bench_list(const std::string& flag, const std::string& text,
                                      int64_t least);

}  // namespace tandem
