// Speed, memory and energy of one cell. The process measures nothing else, so its peak is the
// cell's.
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <set>

#include "base/clock.h"
#include "base/error.h"
#include "model/model.h"
#include "runtime/engine.h"
#include "study/meters/clock.h"
#include "study/meters/energy_point.h"
#include "study/meters/memory.h"
#include "study/task.h"
#include "study/workload.h"

namespace tandem {
namespace {

constexpr double kNoisySpread = 0.10;
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

// More runs, together long enough for the meter at the rate that the timed runs showed. Of each the
// stretch counts in which all sequences decode.
void add_energy(const Task& task, const Model& model, Bench& bench, EnergyMeter& meter,
                Record& record) {
  const double rate = record.decode_tokens_per_second.median();
  const auto wanted = static_cast<int64_t>(std::ceil(1.4 * task.energy.work_seconds * rate /
                                                     static_cast<double>(record.cell.batch))) +
                      8;
  const int64_t room = std::min<int64_t>(model.config().max_context, 8192) - record.prompt_tokens;
  int64_t repetition = kEnergyRepetition;
  const EnergyPoint point = measure_energy(meter, task.energy, [&] {
    EnergyReading reading;
    const Speed speed = bench.run(repetition++, std::min(wanted, room), &meter, &reading);
    return WorkWindow{reading, speed.decode_tokens, speed.decode_seconds};
  });
  record.extra["energy_window"] = to_json(point);
  record.energy_source = energy_source(meter, point);
  if (!point.work.joules) return;
  record.loaded_idle_watts = point.idle_watts();
  record.mean_watts = point.work.watts();
  record.joules_per_token = point.joules_per_token();
  record.dynamic_joules_per_token = point.dynamic_joules_per_token();
  record.energy_source += fmt::format(", {:.1f} s of steady decode", point.work.seconds);
}

// Of a GPU's memory, all that is not free: weights, cache and buffers, and what the driver adds.
uint64_t device_bytes_in_use(const Device& device) {
  return describe_device(device.name()).memory_bytes - device.free_bytes();
}

}  // namespace

Record measure_speed(const Task& task) {
  Record record = task.record;
  record.started_at = utc_now();
  if (getloadavg(&record.load_average, 1) != 1) record.load_average = std::nan("");
  std::string reason;
  const auto meter = open_energy_meter(task.meter, reason);

  const int64_t load_start_ns = now_ns();
  ThreadPool pool(record.threads);
  // Random matrices lie in the device's memory, which outlives them.
  const std::shared_ptr<Device> device =
      task.random && names_device(record.isa) ? open_device(record.isa) : nullptr;
  const Checkpoint checkpoint =
      task.random ? make_random_model(task.checkpoint, *task.random, device.get(), pool)
                  : load_checkpoint(task.checkpoint);
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
  if (model.device() != nullptr) {
    record.extra["host_peak_bytes"] = record.peak_resident_bytes;
    record.extra["gemm_library"] = model.device()->gemm_library();
    record.peak_resident_bytes = device_bytes_in_use(*model.device());
  }
  if (meter == nullptr) {
    record.energy_source = "not measured: " + reason;
  } else {
    add_energy(task, model, bench, *meter, record);
  }
  return record;
}

}  // namespace tandem
