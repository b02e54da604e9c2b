#include "study/record.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace tandem {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Linear interpolation between order statistics; `sorted` is not empty.
double quantile(const std::vector<double>& sorted, double share) {
  const double position = share * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double weight = position - static_cast<double>(below);
  return sorted[below] * (1.0 - weight) + sorted[above] * weight;
}

// Sorted copy; empty when a value is NaN, which has no order.
std::vector<double> sorted_numbers(const std::vector<double>& values) {
  for (const double value : values) {
    if (std::isnan(value)) return {};
  }
  std::vector<double> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

// The fields of each struct, listed once; `f(name, field)` writes or reads them.
template <typename Cell, typename F>
void visit_cell(Cell& c, F&& f) {
  f("variant", c.variant);
  f("kv", c.kv);
  f("batch", c.batch);
}

template <typename Q, typename F>
void visit_quality(Q& q, F&& f) {
  f("perplexity", q.perplexity);
  f("perplexity_stderr", q.perplexity_stderr);
  f("kl_divergence", q.kl_divergence);
  f("kl_stderr", q.kl_stderr);
  f("log_ratio", q.log_ratio);
  f("log_ratio_stderr", q.log_ratio_stderr);
  f("top1_agreement", q.top1_agreement);
  f("scored_tokens", q.scored_tokens);
  f("sample_answers", q.sample_answers);
  f("task_hits", q.task_hits);
}

template <typename R, typename F>
void visit_record(R& r, F&& f) {
  f("study_id", r.study_id);
  f("cell", r.cell);
  f("prompt_tokens", r.prompt_tokens);
  f("new_tokens", r.new_tokens);
  f("seed", r.seed);
  f("threads", r.threads);
  f("isa", r.isa);
  f("kernels", r.kernels);
  f("prefill_tokens_per_second", r.prefill_tokens_per_second);
  f("decode_tokens_per_second", r.decode_tokens_per_second);
  f("first_token_seconds", r.first_token_seconds);
  f("noisy", r.noisy);
  f("reruns", r.reruns);
  f("file_bytes", r.file_bytes);
  f("weight_bytes", r.weight_bytes);
  f("kv_bytes", r.kv_bytes);
  f("workspace_bytes", r.workspace_bytes);
  f("peak_resident_bytes", r.peak_resident_bytes);
  f("step_read_bytes", r.step_read_bytes);
  f("idle_watts", r.idle_watts);
  f("loaded_idle_watts", r.loaded_idle_watts);
  f("mean_watts", r.mean_watts);
  f("joules_per_token", r.joules_per_token);
  f("dynamic_joules_per_token", r.dynamic_joules_per_token);
  f("energy_source", r.energy_source);
  f("quality", r.quality);
  f("model_path", r.model_path);
  f("model_hash", r.model_hash);
  f("text_path", r.text_path);
  f("text_hash", r.text_hash);
  f("commit", r.commit);
  f("version", r.version);
  f("machine", r.machine);
  f("cpu", r.cpu);
  f("compiler", r.compiler);
  f("started_at", r.started_at);
  f("load_average", r.load_average);
  f("extra", r.extra);
}

struct Writer {
  Json out = Json::object();

  void operator()(const char* name, double value) { out[name] = number(value); }
  void operator()(const char* name, const std::optional<double>& value) {
    out[name] = value ? number(*value) : Json();
  }
  void operator()(const char* name, const std::optional<std::string>& value) {
    if (value) out[name] = *value;
  }
  void operator()(const char* name, const Samples& samples) {
    Json values = Json::array();
    for (const double value : samples.values) values.push_back(number(value));
    out[name] = std::move(values);
  }
  void operator()(const char* name, const CellKey& cell) {
    Writer nested;
    visit_cell(cell, nested);
    out[name] = std::move(nested.out);
  }
  void operator()(const char* name, const Quality& quality) { out[name] = to_json(quality); }
  template <typename T>
  void operator()(const char* name, const T& value) {
    out[name] = value;
  }

  static Json number(double value) {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
    return value;
  }
};

struct Reader {
  const Json& in;

  void operator()(const char* name, double& value) { value = number(in.at(name)); }
  void operator()(const char* name, std::optional<double>& value) {
    const auto field = in.find(name);  // records of an older version may not have it
    if (field != in.end() && !field->is_null()) value = number(*field);
  }
  void operator()(const char* name, std::optional<std::string>& value) {
    const auto field = in.find(name);
    if (field != in.end()) value = field->get<std::string>();
  }
  void operator()(const char* name, Samples& samples) {
    for (const Json& value : in.at(name)) samples.values.push_back(number(value));
  }
  void operator()(const char* name, CellKey& cell) { visit_cell(cell, Reader{in.at(name)}); }
  void operator()(const char* name, Quality& quality) { quality = quality_from_json(in.at(name)); }
  void operator()(const char* name, Json& value) { value = in.at(name); }
  template <typename T>
  void operator()(const char* name, T& value) {
    in.at(name).get_to(value);
  }

  static double number(const Json& json) {
    if (!json.is_string()) return json.get<double>();
    const auto& text = json.get_ref<const std::string&>();
    if (text == "nan") return kNan;
    if (text == "inf") return kInfinity;
    if (text == "-inf") return -kInfinity;
    fail(ErrorKind::bad_file, "record: found {} where a number stands", quote(text));
  }
};

}  // namespace

double Samples::median() const {
  const std::vector<double> sorted = sorted_numbers(values);
  return sorted.empty() ? kNan : quantile(sorted, 0.5);
}

double Samples::spread() const {
  if (values.size() < 2) return 0;
  const std::vector<double> sorted = sorted_numbers(values);
  if (sorted.empty()) return kNan;
  return (quantile(sorted, 0.75) - quantile(sorted, 0.25)) / quantile(sorted, 0.5);
}

Json to_json(const Quality& quality) {
  Writer writer;
  visit_quality(quality, writer);
  return std::move(writer.out);
}

Json to_json(const Record& record) {
  Writer writer;
  visit_record(record, writer);
  return std::move(writer.out);
}

Quality quality_from_json(const Json& json) {
  try {
    Quality quality;
    visit_quality(quality, Reader{json});
    return quality;
  } catch (const Json::exception& error) {
    fail(ErrorKind::bad_file, "record: quality: {}", quote(error.what(), 160));
  }
}

Record record_from_json(const Json& json) {
  try {
    Record record;
    visit_record(record, Reader{json});
    return record;
  } catch (const Json::exception& error) {
    fail(ErrorKind::bad_file, "record: {}", quote(error.what(), 160));
  }
}

bool has_random_weights(const Record& record) {
  return record.extra.is_object() && record.extra.contains("random_weights");
}

}  // namespace tandem
