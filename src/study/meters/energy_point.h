// Idle, work, idle: what a kind of work costs, beside what the same machine draws doing nothing.
#pragma once

#include <functional>
#include <optional>

#include "base/json.h"
#include "study/meters/energy.h"

namespace tandem {

struct EnergyWindows {
  double work_seconds = 0;  // the least that is believed, over all windows of work
  double idle_seconds = 0;  // of each idle window; 0: none
};

// One stretch of work with the meter open, and the tokens that came of it.
struct WorkWindow {
  EnergyReading reading;
  int64_t tokens = 0;
  double seconds = 0;  // of the work, by our clock
};

struct EnergyPoint {
  EnergyReading idle_before, idle_after;  // with the model loaded
  EnergyReading work;                     // joules absent, with the reason: not measured
  int64_t tokens = 0;
  double work_seconds = 0;

  std::optional<double> idle_watts() const;  // mean of the two idle windows
  std::optional<double> joules_per_token() const;
  // Without what the idle machine would have drawn in that time.
  std::optional<double> dynamic_joules_per_token() const;
  std::optional<double> tokens_per_joule() const;  // tokens a second for each watt
  double tokens_per_second() const { return static_cast<double>(tokens) / work_seconds; }
};

// Sleeps with the meter open.
EnergyReading measure_idle(EnergyMeter& meter, double seconds);
// The same once the machine has come to rest: after earlier work its power falls for seconds. Waits
// for at most 12 s.
EnergyReading measure_rest(EnergyMeter& meter, double seconds);

// Idle, then `work` until its windows add up to work_seconds, then idle.
EnergyPoint measure_energy(EnergyMeter& meter, const EnergyWindows& windows,
                           const std::function<WorkWindow()>& work);

// Every number of the point, for a Record; absent ones are null.
Json to_json(const EnergyPoint& point);
Json to_json(const EnergyReading& reading);

}  // namespace tandem
