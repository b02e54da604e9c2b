#include "study/meters/command.h"

#include <charconv>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "study/child.h"

namespace tandem {
namespace {

constexpr double kTimeoutSeconds = 2.0;
constexpr double kPeriodSeconds = 0.2;

std::optional<double> read_watts(const std::string& command, std::string& reason) {
  const ChildResult result = run_child({"/bin/sh", "-c", command}, kTimeoutSeconds);
  if (!result.ok()) {
    reason = fmt::format("--power-command {} {}", quote(command), result.outcome());
    return std::nullopt;
  }
  const std::optional<double> watts = first_number(result.output);
  if (!watts) {
    reason = fmt::format("--power-command {} printed no number: {}", quote(command),
                         quote(result.output, 40));
  }
  return watts;
}

class CommandMeter : public EnergyMeter {
 public:
  explicit CommandMeter(std::string command) : command_(std::move(command)) {}

  std::string source() const override { return "command: " + command_; }
  void start() override {
    sampler_.stop();
    samples_.clear();
    failure_.clear();
    start_ns_ = now_ns();
    sampler_.start([this] { sample(); });
  }
  EnergyReading stop() override {
    const double window_seconds = seconds_since(start_ns_);
    sampler_.stop();
    EnergyReading reading = integrate_power(samples_, window_seconds);
    if (!failure_.empty()) {
      reading.joules.reset();
      reading.reason = failure_;
    }
    return reading;
  }

 private:
  // The sampler's thread alone comes here while it runs.
  void sample() {
    if (!failure_.empty()) return;
    const double before = seconds_since(start_ns_);
    const std::optional<double> watts = read_watts(command_, failure_);
    if (watts) samples_.push_back({0.5 * (before + seconds_since(start_ns_)), *watts});
  }

  std::string command_;
  int64_t start_ns_ = 0;
  std::vector<PowerSample> samples_;
  std::string failure_;
  Sampler sampler_{kPeriodSeconds};
};

}  // namespace

std::optional<double> first_number(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if ((text[i] < '0' || text[i] > '9') && text[i] != '-' && text[i] != '.') continue;
    double value = 0;
    const auto [end, error] = std::from_chars(text.data() + i, text.data() + text.size(), value);
    if (error == std::errc()) return value;
  }
  return std::nullopt;
}

std::unique_ptr<EnergyMeter> open_command_meter(const std::string& command, std::string& reason) {
  if (!read_watts(command, reason)) return nullptr;
  return std::make_unique<CommandMeter>(command);
}

}  // namespace tandem
