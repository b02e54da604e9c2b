// Readings of a meter -> joules, or the reason why the readings cannot be believed. Pure
// arithmetic.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tandem {

// How a GPU ran during a window; absent: not told. Means are over samples.
struct GpuConditions {
  std::optional<double> sm_mhz_mean, sm_mhz_min, memory_mhz_mean, memory_mhz_min;
  std::optional<double> celsius_first, celsius_most;
  std::optional<double> busy_percent_mean;
  std::optional<double> power_limit_watts;
  std::vector<std::string> slowdowns;  // all that were seen, each once
};

struct EnergyReading {
  std::optional<double> joules;  // absent: not measured
  double seconds = 0;            // length of the window
  int64_t num_samples = 0;
  std::string reason;                    // why joules is absent
  std::optional<double> sampled_joules;  // integrated power samples, where `joules` is a counter's
  std::vector<std::string> marks;        // what a reader must know of a window that is valid
  std::optional<GpuConditions> gpu;

  std::optional<double> watts() const {
    if (!joules || seconds <= 0) return std::nullopt;
    return *joules / seconds;
  }
};

// Two windows as one: energies and times add up, means are weighted by time. Not measured when one
// of the two is not.
EnergyReading joined(const EnergyReading& a, const EnergyReading& b);

struct PowerSample {
  double seconds = 0;  // since any fixed moment
  double watts = 0;
};

// Mean power by the trapezoid rule over the samples, times the window. Needs three samples with
// ascending times; a negative or non-finite power spoils the window.
EnergyReading integrate_power(const std::vector<PowerSample>& samples, double window_seconds);

struct CounterSample {
  double seconds = 0;
  uint64_t microjoules = 0;
};

// A counter of energy that wraps from range_microjoules to 0 (0: never wraps). A step down that
// would take more than 10 kW after one wrap is a counter that went back; one that never moves is
// dead.
EnergyReading integrate_counter(const std::vector<CounterSample>& samples,
                                uint64_t range_microjoules);

}  // namespace tandem
