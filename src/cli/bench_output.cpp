#include "cli/bench_output.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <functional>
#include <span>

#include "base/cpu.h"
#include "base/error.h"
#include "base/json.h"
#include "base/version.h"
#include "kernels/device.h"

namespace tandem {
namespace {

constexpr int64_t kMaxNumber = int64_t{1} << 30;

struct MeanDeviation {
  double mean = 0;
  double deviation = 0;  // of the sample; 0 for one value
};

MeanDeviation mean_deviation(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double value : values) sum += value;
  for (const double value : values) squares += (value - sum / n) * (value - sum / n);
  return {sum / n, values.size() < 2 ? 0 : std::sqrt(squares / (n - 1))};
}

struct Summary {
  std::vector<double> ns, rates;  // tokens a second over all sequences
  MeanDeviation time, rate;
  double bytes_per_second = 0;
  std::optional<double> limit_share;
};

Summary summarise(const BenchRow& row) {
  Summary s;
  for (const int64_t ns : row.timing.samples_ns) {
    s.ns.push_back(static_cast<double>(ns));
    s.rates.push_back(1e9 * static_cast<double>(row.test.timed_tokens()) / static_cast<double>(ns));
  }
  s.time = mean_deviation(s.ns);
  s.rate = mean_deviation(s.rates);
  s.bytes_per_second = 1e9 * static_cast<double>(row.timing.bytes_moved) / s.time.mean;
  if (row.read_limit_bytes_per_second) {
    s.limit_share = s.bytes_per_second / *row.read_limit_bytes_per_second;
  }
  return s;
}

double rounded(double value) { return std::round(value * 1e6) * 1e-6; }
Json or_null(const std::optional<double>& value) { return value ? Json(rounded(*value)) : Json(); }

// compare-llama-bench.py pairs rows by a fixed list of keys. What it does not know must not fall
// together: the number of sequences therefore stands in `backends` too. Keys of things that tandem
// does not have carry llama-bench's defaults.
Json fields_json(const BenchRow& row, const Summary& s) {
  const std::string backend = row.device.empty() ? "CPU" : "CUDA";
  const std::string backends = row.test.sequences == 1
                                   ? backend
                                   : fmt::format("{}, {} sequences", backend, row.test.sequences);
  const EnergyPoint point = row.energy.value_or(EnergyPoint{});
  return {{"build_commit", commit()},
          {"build_number", 0},
          {"cpu_info", cpu_features().model_name},
          {"gpu_info", row.device},
          {"backends", backends},
          {"model_filename", row.model_path},
          {"model_type", row.model_type},
          {"model_size", row.model_bytes},
          {"model_n_params", row.model_parameters},
          {"n_batch", row.n_batch},
          {"n_ubatch", row.n_ubatch},
          {"n_threads", row.threads},
          {"cpu_mask", "0x0"},
          {"cpu_strict", false},
          {"poll", 50},
          {"type_k", row.kv},
          {"type_v", row.kv},
          {"n_gpu_layers", -1},
          {"n_cpu_moe", 0},
          {"split_mode", "layer"},
          {"main_gpu", 0},
          {"no_kv_offload", false},
          {"flash_attn", -1},
          {"devices", "auto"},
          {"tensor_split", "0.00"},
          {"tensor_buft_overrides", "none"},
          {"load_mode", "auto"},
          {"lazy_mode", "auto"},
          {"embeddings", false},
          {"no_op_offload", 0},
          {"no_host", false},
          {"repack", true},
          {"fit_target", 0},
          {"fit_min_ctx", 0},
          {"n_prompt", row.test.prompt_tokens},
          {"n_gen", row.test.new_tokens},
          {"n_depth", row.test.depth},
          {"test_time", row.started_at},
          {"avg_ns", std::llround(s.time.mean)},
          {"stddev_ns", std::llround(s.time.deviation)},
          {"avg_ts", rounded(s.rate.mean)},
          {"stddev_ts", rounded(s.rate.deviation)},
          {"n_pl", row.test.sequences},
          {"isa", row.isa},
          {"kernels", row.kernels},
          {"bytes_moved", row.timing.bytes_moved},
          {"gb_per_second", rounded(s.bytes_per_second * 1e-9)},
          {"read_limit_share", or_null(s.limit_share)},
          {"read_limit_source", row.read_limit_source},
          {"gemm_library", row.gemm_library},
          {"joules_per_token", or_null(point.joules_per_token())},
          {"dynamic_joules_per_token", or_null(point.dynamic_joules_per_token())},
          {"tokens_per_second_per_watt", or_null(point.tokens_per_joule())},
          {"mean_watts", or_null(point.work.watts())},
          {"idle_watts", or_null(row.idle_watts)},
          {"loaded_idle_watts", or_null(point.idle_watts())},
          {"energy_source", row.energy_source}};
}

Json row_json(const BenchRow& row) {
  const Summary s = summarise(row);
  Json json = fields_json(row, s);
  json["samples_ns"] = row.timing.samples_ns;
  json["samples_ts"] = Json::array();
  for (const double rate : s.rates) json["samples_ts"].push_back(rounded(rate));
  if (row.energy) json["energy"] = to_json(*row.energy);
  return json;
}

std::string doubled(const std::string& text, char quotation_mark) {
  std::string out(1, quotation_mark);
  for (const char c : text) {
    out += c;
    if (c == quotation_mark) out += c;
  }
  return out + quotation_mark;
}

// Every value between quotation marks, as llama-bench writes CSV and SQL; booleans as 0 and 1 and
// what is not known empty.
std::string quoted_values(const Json& fields, char quotation_mark, const char* separator) {
  std::string out;
  for (const auto& [key, value] : fields.items()) {
    std::string text;
    if (value.is_string()) {
      text = value.get<std::string>();
    } else if (value.is_boolean()) {
      text = value.get<bool>() ? "1" : "0";
    } else if (!value.is_null()) {
      text = value.dump();
    }
    if (!out.empty()) out += separator;
    out += doubled(text, quotation_mark);
  }
  return out;
}

std::string keys_of(const Json& fields, const char* separator,
                    const std::function<std::string(const std::string&, const Json&)>& format) {
  std::string out;
  for (const auto& [key, value] : fields.items()) {
    if (!out.empty()) out += separator;
    out += format(key, value);
  }
  return out;
}

std::string plain_key(const std::string& key, const Json&) { return key; }

std::string sql_column(const std::string& key, const Json& value) {
  const char* type = value.is_string() ? "TEXT" : value.is_number_float() ? "REAL" : "INTEGER";
  return fmt::format("  {} {}", key, type);
}

std::string test_name(const StepTest& test) {
  std::string name;
  if (test.prompt_tokens > 0) name = fmt::format("pp{}", test.prompt_tokens);
  if (test.new_tokens > 0) name += fmt::format("{}tg{}", name.empty() ? "" : "+", test.new_tokens);
  if (test.depth > 0) name += fmt::format(" @ d{}", test.depth);
  return name;
}

// Columns of the Markdown table; negative widths are flush left, as llama-bench has them.
struct Column {
  const char* name;
  int width;
};
constexpr Column kColumns[] = {{"model", -30}, {"size", 10},    {"params", 10}, {"backend", -10},
                               {"threads", 7}, {"n_ubatch", 8}, {"kv", 6},      {"npl", 4},
                               {"test", 15},   {"t/s", 20},     {"GB/s", 7},    {"of limit", 8}};
constexpr Column kEnergyColumns[] = {{"J/token", 9}, {"above idle", 10}, {"W", 6}};

std::string cell(const std::string& text, int width) {
  return width < 0 ? fmt::format(" {:<{}} |", text, -width) : fmt::format(" {:>{}} |", text, width);
}

std::string md_row(const BenchRow& row, bool with_energy) {
  const Summary s = summarise(row);
  const double mib = static_cast<double>(row.model_bytes) / (1 << 20);
  const double millions = static_cast<double>(row.model_parameters) * 1e-6;
  const std::string values[] = {
      row.model_type,
      mib < 1024 ? fmt::format("{:.2f} MiB", mib) : fmt::format("{:.2f} GiB", mib / 1024),
      millions < 1000 ? fmt::format("{:.2f} M", millions)
                      : fmt::format("{:.2f} B", millions * 1e-3),
      names_device(row.isa) ? row.isa : "CPU " + row.isa,
      std::to_string(row.threads),
      std::to_string(row.n_ubatch),
      row.kv,
      std::to_string(row.test.sequences),
      test_name(row.test),
      fmt::format("{:.2f} \u00b1 {:.2f}", s.rate.mean, s.rate.deviation),
      fmt::format("{:.2f}", s.bytes_per_second * 1e-9),
      s.limit_share ? fmt::format("{:.0f} %", 100 * *s.limit_share) : "-"};
  std::string line = "|";
  size_t i = 0;
  for (const Column& column : kColumns) line += cell(values[i++], column.width);
  if (!with_energy) return line + "\n";
  const EnergyPoint point = row.energy.value_or(EnergyPoint{});
  const std::optional<double> numbers[] = {point.joules_per_token(),
                                           point.dynamic_joules_per_token(), point.work.watts()};
  i = 0;
  for (const Column& column : kEnergyColumns) {
    const int digits = column.width == 6 ? 0 : 4;
    line += cell(numbers[i] ? fmt::format("{:.{}f}", *numbers[i], digits) : "-", column.width);
    ++i;
  }
  return line + "\n";
}

std::string md_header(bool with_energy) {
  std::string names = "|", rule = "|";
  const auto add = [&](std::span<const Column> columns) {
    for (const Column& column : columns) {
      names += cell(column.name, column.width);
      rule +=
          fmt::format(" {}{} |", std::string(static_cast<size_t>(std::abs(column.width)) - 1, '-'),
                      column.width > 0 ? ":" : "-");
    }
  };
  add(kColumns);
  if (with_energy) add(kEnergyColumns);
  return names + "\n" + rule + "\n";
}

// A row that has every key with a value of its type.
Json typical_fields() {
  BenchRow row;
  row.test.new_tokens = 1;
  row.timing.samples_ns = {1};
  row.read_limit_bytes_per_second = row.idle_watts = 1;
  EnergyPoint point;
  point.tokens = 1;
  for (EnergyReading* reading : {&point.work, &point.idle_before, &point.idle_after}) {
    reading->joules = reading->seconds = 1;
  }
  row.energy = point;
  return fields_json(row, summarise(row));
}

int64_t take_number(std::string_view& text) {
  int64_t number = -1;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0 || number > kMaxNumber) return -1;
  text.remove_prefix(static_cast<size_t>(rest - text.data()));
  return number;
}

bool take(std::string_view& text, char c) {
  if (!text.starts_with(c)) return false;
  text.remove_prefix(1);
  return true;
}

// One item of a list: first[-last[+step | *factor]]; false when it is not one.
bool parse_range(std::string_view item, std::vector<int64_t>& numbers) {
  constexpr size_t kMaxNumbers = 4096;
  const int64_t first = take_number(item);
  if (first < 0) return false;
  int64_t last = first, step = 1;
  bool multiplies = false;
  if (take(item, '-')) {
    if ((last = take_number(item)) < first) return false;
    multiplies = take(item, '*');
    if (multiplies || take(item, '+')) step = take_number(item);
  }
  if (!item.empty() || step < 1 || (multiplies && (step < 2 || first == 0))) return false;
  for (int64_t n = first; n <= last; n = multiplies ? n * step : n + step) {
    if (numbers.size() == kMaxNumbers) return false;
    numbers.push_back(n);
  }
  return true;
}

}  // namespace

BenchPrinter::BenchPrinter(const std::string& format, bool with_energy)
    : with_energy_(with_energy) {
  const std::pair<const char*, Format> formats[] = {{"csv", Format::csv},
                                                    {"json", Format::json},
                                                    {"jsonl", Format::jsonl},
                                                    {"md", Format::md},
                                                    {"sql", Format::sql}};
  for (const auto& [name, value] : formats) {
    if (format != name) continue;
    format_ = value;
    return;
  }
  fail(ErrorKind::usage, "--output: found {}, expected csv, json, jsonl, md or sql", quote(format));
}

std::string BenchPrinter::header() const {
  switch (format_) {
    case Format::csv:
      return keys_of(typical_fields(), ",", plain_key) + "\n";
    case Format::json:
      return "[";
    case Format::jsonl:
      return "";
    case Format::md:
      return md_header(with_energy_);
    case Format::sql:
      return "CREATE TABLE IF NOT EXISTS llama_bench (\n" +
             keys_of(typical_fields(), ",\n", sql_column) + "\n);\n\n";
  }
  return "";
}

std::string BenchPrinter::row(const BenchRow& row) {
  const bool is_first = !std::exchange(has_rows_, true);
  if (format_ == Format::md) return md_row(row, with_energy_);
  if (format_ == Format::jsonl) return dump_json(row_json(row)) + "\n";
  if (format_ == Format::json) return (is_first ? "\n" : ",\n") + dump_json(row_json(row), 2);
  const Json fields = fields_json(row, summarise(row));
  if (format_ == Format::csv) return quoted_values(fields, '"', ",") + "\n";
  return fmt::format("INSERT INTO llama_bench ({}) VALUES ({});\n",
                     keys_of(fields, ", ", plain_key), quoted_values(fields, '\'', ", "));
}

std::string BenchPrinter::footer() const {
  if (format_ == Format::json) return "\n]\n";
  if (format_ == Format::md) return fmt::format("\nbuild: tandem {} ({})\n", version(), commit());
  return "";
}

std::vector<int64_t> parse_bench_list(const std::string& flag, const std::string& text,
                                      int64_t least) {
  std::vector<int64_t> numbers;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (!parse_range(std::string_view(text).substr(begin, end - begin), numbers)) {
      fail(ErrorKind::usage, "{}: found {}, expected numbers like 128,256 or 64-256*2 or 1-8+2",
           flag, quote(text));
    }
    begin = end + 1;
  }
  for (const int64_t number : numbers) {
    if (number < least)
      fail(ErrorKind::usage, "{}: found {}, expected at least {}", flag, number, least);
  }
  return numbers;
}

}  // namespace tandem
