#include "study/export.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

namespace tandem {
namespace {

using Row = std::vector<std::pair<std::string, std::string>>;  // column name, field

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted_text = "\"";
  for (const char c : text) {
    if (c == '"') quoted_text += '"';
    quoted_text += c;
  }
  return quoted_text + '"';
}

std::string number(double value) { return std::isfinite(value) ? fmt::format("{}", value) : ""; }
std::string number(const std::optional<double>& value) { return value ? number(*value) : ""; }

void add_samples(Row& row, const std::string& name, const Samples& samples) {
  row.emplace_back(name, number(samples.median()));
  row.emplace_back(name + "_spread", number(samples.spread()));
  row.emplace_back(name + "_samples", fmt::format("{}", samples.values.size()));
}

Row row_of(const Record& r) {
  Row row = {{"study_id", r.study_id},
             {"variant", r.cell.variant},
             {"kv", r.cell.kv},
             {"batch", fmt::format("{}", r.cell.batch)},
             {"prompt_tokens", fmt::format("{}", r.prompt_tokens)},
             {"new_tokens", fmt::format("{}", r.new_tokens)},
             {"threads", fmt::format("{}", r.threads)},
             {"isa", r.isa}};
  add_samples(row, "prefill_tokens_per_second", r.prefill_tokens_per_second);
  add_samples(row, "decode_tokens_per_second", r.decode_tokens_per_second);
  add_samples(row, "first_token_seconds", r.first_token_seconds);
  const Row rest = {{"noisy", r.noisy ? "1" : "0"},
                    {"reruns", fmt::format("{}", r.reruns)},
                    {"file_bytes", fmt::format("{}", r.file_bytes)},
                    {"weight_bytes", fmt::format("{}", r.weight_bytes)},
                    {"kv_bytes", fmt::format("{}", r.kv_bytes)},
                    {"workspace_bytes", fmt::format("{}", r.workspace_bytes)},
                    {"peak_resident_bytes", fmt::format("{}", r.peak_resident_bytes)},
                    {"idle_watts", number(r.idle_watts)},
                    {"loaded_idle_watts", number(r.loaded_idle_watts)},
                    {"mean_watts", number(r.mean_watts)},
                    {"joules_per_token", number(r.joules_per_token)},
                    {"dynamic_joules_per_token", number(r.dynamic_joules_per_token)},
                    {"energy_source", r.energy_source},
                    {"perplexity", number(r.quality.perplexity)},
                    {"perplexity_stderr", number(r.quality.perplexity_stderr)},
                    {"kl_divergence", number(r.quality.kl_divergence)},
                    {"kl_stderr", number(r.quality.kl_stderr)},
                    {"log_ratio", number(r.quality.log_ratio)},
                    {"log_ratio_stderr", number(r.quality.log_ratio_stderr)},
                    {"top1_agreement", number(r.quality.top1_agreement)},
                    {"scored_tokens", fmt::format("{}", r.quality.scored_tokens)},
                    {"model_path", r.model_path},
                    {"model_hash", r.model_hash},
                    {"text_hash", r.text_hash},
                    {"seed", fmt::format("{}", r.seed)},
                    {"commit", r.commit},
                    {"machine", r.machine},
                    {"cpu", r.cpu},
                    {"started_at", r.started_at}};
  row.insert(row.end(), rest.begin(), rest.end());
  return row;
}

template <typename Pick>
std::string csv_line(const Row& row, Pick pick) {
  std::string line;
  for (const auto& column : row) line += csv_field(pick(column)) + ',';
  line.back() = '\r';
  return line + '\n';
}

}  // namespace

std::string records_jsonl(const std::vector<Record>& records) {
  std::string text;
  for (const Record& record : records) text += dump_json(to_json(record)) + "\n";
  return text;
}

std::string records_csv(const std::vector<Record>& records) {
  std::string text = csv_line(row_of(Record{}), [](const auto& column) { return column.first; });
  for (const Record& record : records) {
    text += csv_line(row_of(record), [](const auto& column) { return column.second; });
  }
  return text;
}

}  // namespace tandem
