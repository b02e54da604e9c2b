// Speed, memory and energy of one cell. The process measures nothing else, so its peak is the
// cell's.
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <set>

#include "base/clock.h"
#include "base/error.h"
#include "model/model.h"
#include "runtime/engine.h"
#include "study/meters/clock.h"
#include "study/meters/energy.h"
#include "study/meters/memory.h"
#include "study/task.h"
#include "study/workload.h"

namespace tandem {
namespace {

constexpr double kNoisySpread = 0.10;
constexpr double kEnergySeconds = 2.0;          // the least window that is believed
constexpr int64_t kEnergyRepetition = 1 << 20;  // its prompts are those of no timed run

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// One cell's engine and what its runs have in common.
class Bench {
 public:
  Bench(const Task& task, const Model& model, bool with_energy)
      : record_(task.record),
        text_tokens_(read_tokens(task.tokens_path)),
        engine_(model, options(task, model, with_energy)) {}

  // Fixed output length: no stop tokens. `meter`, when given, is open while all sequences decode.
  Speed run(int64_t repetition, int64_t new_tokens, EnergyMeter* meter, EnergyReading* reading) {
    const int64_t batch = record_.cell.batch;
    auto rows = prompt_rows(text_tokens_, batch, record_.prompt_tokens, record_.seed, repetition);
    std::vector<StepTiming> steps;
    std::set<uint64_t> begun;
    const int64_t submit_ns = now_ns();
    for (int64_t i = 0; i < batch; ++i) {
      Request request;
      request.id = next_id_++;
      request.prompt = std::move(rows[static_cast<size_t>(i)]);
      request.max_tokens = new_tokens;
      engine_.submit(std::move(request));
    }
    StepTiming step;
    const auto sink = [&](const TokenEvent& event) {
      if (event.token >= 0) {
        ++step.num_tokens;
        if (begun.insert(event.request_id).second) ++step.num_first_tokens;
      }
      if (event.finish != FinishReason::none) ++step.num_finished;
    };
    bool metering = false;
    while (engine_.step(sink)) {
      step.end_ns = now_ns();
      kv_bytes_used_ = std::max(kv_bytes_used_, engine_.stats().kv_bytes_used);
      steps.push_back(step);
      if (metering && step.num_finished > 0) {
        *reading = meter->stop();
        metering = false;
      }
      if (meter != nullptr && step.num_first_tokens > 0 &&
          static_cast<int64_t>(begun.size()) == batch) {
        meter->start();
        metering = true;
      }
      step = {};
    }
    return speed_of(steps, submit_ns, batch, record_.prompt_tokens);
  }

  uint64_t kv_bytes_used() const { return kv_bytes_used_; }
  uint64_t workspace_bytes() const { return engine_.stats().workspace_bytes; }

 private:
  static EngineOptions options(const Task& task, const Model& model, bool with_energy) {
    const Record& record = task.record;
    EngineOptions options;
    options.kv_type = kv_type_of(record.cell.kv);
    options.max_sequences = record.cell.batch;
    options.max_context = record.prompt_tokens + record.new_tokens;
    if (options.max_context > model.config().max_context) {
      fail(ErrorKind::usage, "study: prompt {} + {} new tokens, the model's context is {}",
           record.prompt_tokens, record.new_tokens, model.config().max_context);
    }
    // A window long enough for a power meter may need more tokens than the timed runs.
    if (with_energy) options.max_context = std::min<int64_t>(model.config().max_context, 8192);
    return options;
  }

  const Record& record_;
  std::vector<int32_t> text_tokens_;
  Engine engine_;
  uint64_t next_id_ = 1;
  uint64_t kv_bytes_used_ = 0;
};

double worst_spread(const Record& record) {
  return std::max(record.prefill_tokens_per_second.spread(),
                  record.decode_tokens_per_second.spread());
}

void measure_runs(const Task& task, Bench& bench, Record& record) {
  int64_t repetition = 0;
  for (int i = 0; i < task.num_warmups; ++i) {
    bench.run(repetition++, record.new_tokens, nullptr, nullptr);
  }
  for (record.reruns = 0;; ++record.reruns) {
    record.prefill_tokens_per_second.values.clear();
    record.decode_tokens_per_second.values.clear();
    record.first_token_seconds.values.clear();
    for (int i = 0; i < task.num_runs; ++i) {
      const Speed speed = bench.run(repetition++, record.new_tokens, nullptr, nullptr);
      record.prefill_tokens_per_second.values.push_back(speed.prefill_tokens_per_second);
      record.decode_tokens_per_second.values.push_back(speed.decode_tokens_per_second);
      record.first_token_seconds.values.push_back(speed.first_token_seconds);
    }
    record.noisy = !(worst_spread(record) <= kNoisySpread);
    if (!record.noisy || record.reruns == task.max_reruns) return;
  }
}

// One more run, long enough for the meter, at the rate that the timed runs showed.
void measure_energy(const Model& model, Bench& bench, EnergyMeter& meter, Record& record) {
  const double rate = record.decode_tokens_per_second.median();
  const auto wanted = static_cast<int64_t>(std::ceil(1.4 * kEnergySeconds * rate /
                                                     static_cast<double>(record.cell.batch))) +
                      8;
  const int64_t room = std::min<int64_t>(model.config().max_context, 8192) - record.prompt_tokens;
  EnergyReading reading;
  const Speed speed = bench.run(kEnergyRepetition, std::min(wanted, room), &meter, &reading);
  if (!reading.joules) {
    record.energy_source = "not measured: " + meter.source() + ": " + reading.reason;
  } else if (reading.seconds < kEnergySeconds) {
    record.energy_source =
        fmt::format("not measured: steady decode lasted {:.1f} s, {:.0f} s needed", reading.seconds,
                    kEnergySeconds);
  } else {
    record.mean_watts = reading.watts();
    record.joules_per_token = *reading.joules / static_cast<double>(speed.decode_tokens);
    record.energy_source =
        fmt::format("{}, {:.1f} s of steady decode", meter.source(), reading.seconds);
    record.extra["energy_window"] = {{"seconds", reading.seconds},
                                     {"tokens", speed.decode_tokens},
                                     {"tokens_per_second", speed.decode_tokens_per_second},
                                     {"samples", reading.num_samples}};
  }
}

}  // namespace

Record measure_speed(const Task& task) {
  Record record = task.record;
  record.started_at = utc_now();
  if (getloadavg(&record.load_average, 1) != 1) record.load_average = std::nan("");
  std::string reason;
  const auto meter = open_energy_meter({task.power_command, ""}, reason);

  const int64_t load_start_ns = now_ns();
  const Checkpoint checkpoint = load_checkpoint(task.checkpoint);
  ThreadPool pool(record.threads);
  const Model model(checkpoint, pool, record.isa);
  Bench bench(task, model, meter != nullptr);
  record.extra["load_seconds"] = seconds_since(load_start_ns);
  record.extra["checkpoint"] = task.checkpoint.string();
  record.kernels = model.kernels_in_use();
  record.file_bytes = checkpoint.file_bytes;
  record.weight_bytes = model.weight_bytes();
  record.step_read_bytes = model.step_read_bytes();

  measure_runs(task, bench, record);
  record.kv_bytes = bench.kv_bytes_used();
  record.workspace_bytes = bench.workspace_bytes();
  record.peak_resident_bytes = peak_resident_bytes();
  if (meter == nullptr) {
    record.energy_source = "not measured: " + reason;
  } else {
    measure_energy(model, bench, *meter, record);
  }
  return record;
}

}  // namespace tandem
