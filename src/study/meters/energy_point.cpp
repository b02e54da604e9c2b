#include "study/meters/energy_point.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

namespace tandem {
namespace {

constexpr int kMostWindows = 16;        // of work
constexpr double kSettleSeconds = 1.0;  // from work to idle, while clocks and fans come down
constexpr double kLookSeconds = 1.0;
constexpr int kMostLooks = 12;  // at a machine that comes to rest
constexpr double kStillFalling = 0.98;                 // of the power one look before

void sleep_seconds(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

Json or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

Json to_json(const GpuConditions& gpu) {
  return {{"sm_mhz_mean", or_null(gpu.sm_mhz_mean)},
          {"sm_mhz_min", or_null(gpu.sm_mhz_min)},
          {"memory_mhz_mean", or_null(gpu.memory_mhz_mean)},
          {"memory_mhz_min", or_null(gpu.memory_mhz_min)},
          {"celsius_first", or_null(gpu.celsius_first)},
          {"celsius_most", or_null(gpu.celsius_most)},
          {"busy_percent_mean", or_null(gpu.busy_percent_mean)},
          {"power_limit_watts", or_null(gpu.power_limit_watts)},
          {"slowdowns", gpu.slowdowns}};
}

}  // namespace

std::optional<double> EnergyPoint::idle_watts() const {
  const auto before = idle_before.watts(), after = idle_after.watts();
  if (!before || !after) return std::nullopt;
  return 0.5 * (*before + *after);
}

std::optional<double> EnergyPoint::joules_per_token() const {
  if (!work.joules || tokens == 0) return std::nullopt;
  return *work.joules / static_cast<double>(tokens);
}

std::optional<double> EnergyPoint::dynamic_joules_per_token() const {
  const auto idle = idle_watts();
  if (!work.joules || tokens == 0 || !idle) return std::nullopt;
  return (*work.joules - *idle * work.seconds) / static_cast<double>(tokens);
}

std::optional<double> EnergyPoint::tokens_per_joule() const {
  const auto joules = joules_per_token();
  if (!joules || !(*joules > 0)) return std::nullopt;
  return 1 / *joules;
}

EnergyReading measure_idle(EnergyMeter& meter, double seconds) {
  meter.start();
  sleep_seconds(seconds);
  return meter.stop();
}

EnergyReading measure_rest(EnergyMeter& meter, double seconds) {
  double last = measure_idle(meter, kLookSeconds).watts().value_or(0);
  for (int looks = 1; looks < kMostLooks; ++looks) {
    const double watts = measure_idle(meter, kLookSeconds).watts().value_or(0);
    if (watts >= kStillFalling * last) break;
    last = watts;
  }
  return measure_idle(meter, seconds);
}

EnergyPoint measure_energy(EnergyMeter& meter, const EnergyWindows& windows,
                           const std::function<WorkWindow()>& work) {
  EnergyPoint point;
  if (windows.idle_seconds > 0) {
    sleep_seconds(kSettleSeconds);
    point.idle_before = measure_idle(meter, windows.idle_seconds);
  }
  int count = 0;
  do {
    const WorkWindow window = work();
    point.work = count == 0 ? window.reading : joined(point.work, window.reading);
    point.tokens += window.tokens;
    point.work_seconds += window.seconds;
    ++count;
  } while (point.work.joules && point.work.seconds < windows.work_seconds && count < kMostWindows);
  if (point.work.joules && point.work.seconds < windows.work_seconds) {
    point.work.joules.reset();
    point.work.reason = fmt::format("steady work lasted {:.1f} s in {} windows, {:.0f} s needed",
                                    point.work.seconds, count, windows.work_seconds);
  }
  if (windows.idle_seconds > 0) {
    sleep_seconds(kSettleSeconds);
    point.idle_after = measure_idle(meter, windows.idle_seconds);
  }
  return point;
}

Json to_json(const EnergyReading& reading) {
  Json json = {
      {"joules", or_null(reading.joules)}, {"sampled_joules", or_null(reading.sampled_joules)},
      {"watts", or_null(reading.watts())}, {"seconds", reading.seconds},
      {"samples", reading.num_samples},    {"valid", reading.joules.has_value()},
      {"reason", reading.reason},          {"marks", reading.marks}};
  if (reading.gpu) json["gpu"] = to_json(*reading.gpu);
  return json;
}

Json to_json(const EnergyPoint& point) {
  Json json = to_json(point.work);
  json["tokens"] = point.tokens;
  json["tokens_per_second"] = point.tokens_per_second();
  json["joules_per_token"] = or_null(point.joules_per_token());
  json["dynamic_joules_per_token"] = or_null(point.dynamic_joules_per_token());
  json["tokens_per_second_per_watt"] = or_null(point.tokens_per_joule());
  json["idle_watts"] = or_null(point.idle_watts());
  if (point.idle_before.seconds > 0) json["idle_before"] = to_json(point.idle_before);
  if (point.idle_after.seconds > 0) json["idle_after"] = to_json(point.idle_after);
  return json;
}

}  // namespace tandem
