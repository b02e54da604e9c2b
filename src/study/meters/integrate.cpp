#include "study/meters/integrate.h"

#include <fmt/format.h>

#include <cmath>

namespace tandem {
namespace {

constexpr double kMostWatts = 10000;  // above what one socket or board can draw

EnergyReading not_measured(EnergyReading reading, std::string reason) {
  reading.joules.reset();
  reading.reason = std::move(reason);
  return reading;
}

}  // namespace

EnergyReading integrate_power(const std::vector<PowerSample>& samples, double window_seconds) {
  EnergyReading reading;
  reading.seconds = window_seconds;
  reading.num_samples = static_cast<int64_t>(samples.size());
  if (samples.size() < 3) {
    return not_measured(reading, fmt::format("{} power samples in {:.1f} s, 3 needed",
                                             samples.size(), window_seconds));
  }
  double joules = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    if (!std::isfinite(samples[i].watts) || samples[i].watts < 0 || samples[i].watts > kMostWatts) {
      return not_measured(reading, fmt::format("the meter gave {} W", samples[i].watts));
    }
    if (i == 0) continue;
    const double step = samples[i].seconds - samples[i - 1].seconds;
    if (!(step > 0)) return not_measured(reading, "the samples' times do not ascend");
    joules += 0.5 * (samples[i].watts + samples[i - 1].watts) * step;
  }
  reading.joules = joules / (samples.back().seconds - samples.front().seconds) * window_seconds;
  return reading;
}

EnergyReading integrate_counter(const std::vector<CounterSample>& samples,
                                uint64_t range_microjoules) {
  EnergyReading reading;
  reading.num_samples = static_cast<int64_t>(samples.size());
  if (samples.size() < 2) return not_measured(reading, "fewer than 2 readings of the counter");
  reading.seconds = samples.back().seconds - samples.front().seconds;
  double joules = 0;
  for (size_t i = 1; i < samples.size(); ++i) {
    const uint64_t before = samples[i - 1].microjoules, after = samples[i].microjoules;
    const double step_seconds = samples[i].seconds - samples[i - 1].seconds;
    double step = 0;
    if (after >= before) {
      step = static_cast<double>(after - before) * 1e-6;
    } else if (range_microjoules >= before) {
      step = static_cast<double>(range_microjoules - before + after) * 1e-6;
    } else {
      return not_measured(reading,
                          fmt::format("the counter went back from {} to {} uJ", before, after));
    }
    if (step > kMostWatts * step_seconds) {
      return not_measured(reading, fmt::format("the counter jumped from {} to {} uJ in {:.2f} s",
                                               before, after, step_seconds));
    }
    joules += step;
  }
  if (joules == 0) {
    return not_measured(reading,
                        fmt::format("the counter stood still for {:.1f} s", reading.seconds));
  }
  reading.joules = joules;
  return reading;
}

}  // namespace tandem
