#include "study/meters/integrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tandem {
namespace {

constexpr double kMostWatts = 10000;  // above what one socket or board can draw

EnergyReading not_measured(EnergyReading reading, std::string reason) {
  reading.joules.reset();
  reading.reason = std::move(reason);
  return reading;
}

using Number = std::optional<double>;

// `combine` of two numbers that may be absent: of one, that one.
template <typename F>
Number both(const Number& a, const Number& b, F combine) {
  if (!a || !b) return a ? a : b;
  return combine(*a, *b);
}

void add_new(std::vector<std::string>& all, const std::vector<std::string>& more) {
  for (const std::string& text : more) {
    if (std::ranges::find(all, text) == all.end()) all.push_back(text);
  }
}

GpuConditions joined(const GpuConditions& a, const GpuConditions& b, double share_of_a) {
  const auto mean = [&](double x, double y) { return share_of_a * x + (1 - share_of_a) * y; };
  const auto least = [](double x, double y) { return std::min(x, y); };
  const auto most = [](double x, double y) { return std::max(x, y); };
  GpuConditions sum = a;
  sum.sm_mhz_mean = both(a.sm_mhz_mean, b.sm_mhz_mean, mean);
  sum.sm_mhz_min = both(a.sm_mhz_min, b.sm_mhz_min, least);
  sum.memory_mhz_mean = both(a.memory_mhz_mean, b.memory_mhz_mean, mean);
  sum.memory_mhz_min = both(a.memory_mhz_min, b.memory_mhz_min, least);
  sum.celsius_most = both(a.celsius_most, b.celsius_most, most);
  sum.busy_percent_mean = both(a.busy_percent_mean, b.busy_percent_mean, mean);
  add_new(sum.slowdowns, b.slowdowns);
  return sum;
}

}  // namespace

EnergyReading joined(const EnergyReading& a, const EnergyReading& b) {
  EnergyReading sum = a;
  sum.seconds += b.seconds;
  sum.num_samples += b.num_samples;
  add_new(sum.marks, b.marks);
  if (!a.joules || !b.joules) {
    sum.joules.reset();
    sum.reason = a.joules ? b.reason : a.reason;
  } else {
    sum.joules = *a.joules + *b.joules;
  }
  if (sum.sampled_joules && b.sampled_joules) {
    *sum.sampled_joules += *b.sampled_joules;
  } else {
    sum.sampled_joules.reset();
  }
  if (a.gpu && b.gpu && sum.seconds > 0) {
    sum.gpu = joined(*a.gpu, *b.gpu, a.seconds / sum.seconds);
  }
  return sum;
}

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
