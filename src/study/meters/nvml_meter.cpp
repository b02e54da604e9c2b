#include "study/meters/nvml_meter.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/clock.h"

namespace tandem {
namespace {

constexpr double kPeriodSeconds = 0.1;
constexpr double kMostDisagreement = 0.05;

// What a number was over the samples that had it.
struct Range {
  double sum = 0, least = 0, most = 0;
  int64_t count = 0;

  void add(const std::optional<double>& value) {
    if (!value) return;
    least = count == 0 ? *value : std::min(least, *value);
    most = count == 0 ? *value : std::max(most, *value);
    sum += *value;
    ++count;
  }
  std::optional<double> if_any(double value) const {
    return count > 0 ? std::optional(value) : std::nullopt;
  }
  std::optional<double> mean() const { return if_any(sum / static_cast<double>(count)); }
};

GpuConditions conditions_of(const std::vector<GpuState>& states) {
  Range sm, memory, celsius, busy;
  uint64_t slowdowns = 0;
  GpuConditions conditions;
  for (const GpuState& state : states) {
    sm.add(state.sm_mhz);
    memory.add(state.memory_mhz);
    celsius.add(state.celsius);
    busy.add(state.busy_percent);
    slowdowns |= state.slowdowns.value_or(0);
    if (!conditions.celsius_first) conditions.celsius_first = state.celsius;
  }
  conditions.sm_mhz_mean = sm.mean();
  conditions.sm_mhz_min = sm.if_any(sm.least);
  conditions.memory_mhz_mean = memory.mean();
  conditions.memory_mhz_min = memory.if_any(memory.least);
  conditions.celsius_most = celsius.if_any(celsius.most);
  conditions.busy_percent_mean = busy.mean();
  conditions.slowdowns = slowdown_names(slowdowns);
  return conditions;
}

class NvmlMeter final : public EnergyMeter {
 public:
  explicit NvmlMeter(std::unique_ptr<Nvml> nvml)
      : nvml_(std::move(nvml)), limit_watts_(nvml_->power_limit_watts()) {}

  std::string source() const override { return "NVML energy counter of the GPU's board"; }

  void start() override {
    sampler_.stop();
    counts_.clear();
    powers_.clear();
    states_.clear();
    failure_.clear();
    last_watts_at_us_ = 0;
    count();
    sampler_.start([this] { sample(); });
  }

  EnergyReading stop() override {
    count();  // before the sampler's thread is waited for, which is no part of the window
    sampler_.stop();
    EnergyReading reading = integrate_counter(counts_, 0);
    reading.num_samples = static_cast<int64_t>(powers_.size());
    reading.gpu = conditions_of(states_);
    reading.gpu->power_limit_watts = limit_watts_;
    processes_ = nvml_->processes().value_or(0);
    reading.sampled_joules = integrate_power(powers_, reading.seconds).joules;
    judge(reading);
    return reading;
  }

 private:
  void count() {
    const double seconds = static_cast<double>(now_ns()) * 1e-9;
    const std::optional<uint64_t> value = nvml_->energy_millijoules(failure_);
    if (value) counts_.push_back({seconds, *value * 1000});
  }
  // The sampler's thread alone comes here while it runs.
  void sample() {
    const GpuState state = nvml_->state();
    const bool is_new = state.watts_at_us == 0 || state.watts_at_us != last_watts_at_us_;
    if (state.watts && is_new) {
      powers_.push_back({static_cast<double>(now_ns()) * 1e-9, *state.watts});
      last_watts_at_us_ = state.watts_at_us;
    }
    states_.push_back(state);
  }
  void judge(EnergyReading& reading) const {
    uint64_t slowdowns = 0;
    for (const GpuState& state : states_) slowdowns |= state.slowdowns.value_or(0);
    if (!failure_.empty()) {
      reading.joules.reset();
      reading.reason = failure_;
    } else if (processes_ > 1) {
      reading.joules.reset();
      reading.reason = fmt::format("{} processes share the GPU, whose counter is one", processes_);
    } else if ((slowdowns & kInvalidatingSlowdowns) != 0) {
      reading.joules.reset();
      reading.reason =
          fmt::format("the GPU slowed down: {}",
                      fmt::join(slowdown_names(slowdowns & kInvalidatingSlowdowns), ", "));
    }
    if ((slowdowns & kSoftwarePowerCap) != 0) {
      reading.marks.push_back(limit_watts_ ? fmt::format("power-capped at {:.0f} W", *limit_watts_)
                                           : "power-capped");
    }
    if (!reading.joules) return;
    if (!reading.sampled_joules) {
      reading.marks.push_back("no power samples to hold the counter against");
      return;
    }
    const double difference = *reading.sampled_joules / *reading.joules - 1;
    if (!(std::abs(difference) <= kMostDisagreement)) {
      reading.marks.push_back(
          fmt::format("power samples give {:+.1f} % of the counter's energy", 100 * difference));
    }
  }

  std::unique_ptr<Nvml> nvml_;
  std::optional<double> limit_watts_;
  std::vector<CounterSample> counts_;  // the window's two ends
  std::vector<PowerSample> powers_;
  std::vector<GpuState> states_;
  int64_t last_watts_at_us_ = 0, processes_ = 0;
  std::string failure_;
  Sampler sampler_{kPeriodSeconds};
};

}  // namespace

std::unique_ptr<EnergyMeter> open_nvml_meter(const std::string& pci_address, std::string& reason,
                                             const char* library) {
  std::unique_ptr<Nvml> nvml = Nvml::open(pci_address, reason, library);
  if (nvml == nullptr || !nvml->energy_millijoules(reason)) return nullptr;
  return std::make_unique<NvmlMeter>(std::move(nvml));
}

}  // namespace tandem
