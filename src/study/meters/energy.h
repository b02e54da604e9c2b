// A source of energy readings over windows that the caller opens and closes.
#pragma once

#include <sched.h>

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "study/meters/integrate.h"

namespace tandem {

class EnergyMeter {
 public:
  virtual ~EnergyMeter() = default;
  // What is measured: "RAPL package (1 socket)", "command: ...".
  virtual std::string source() const = 0;
  // Opens a window; a window that is open is dropped.
  virtual void start() = 0;
  virtual EnergyReading stop() = 0;
};

// Where power is read, in this order: the command when it is not empty, the GPU when it is not
// empty, RAPL.
struct MeterChoice {
  std::string power_command;
  std::string gpu_pci_address;
  std::filesystem::path powercap_root = "/sys/class/powercap";
};

// Null when there is nothing to read, with the reason.
std::unique_ptr<EnergyMeter> open_energy_meter(const MeterChoice& choice, std::string& reason);

// Calls a function in a thread of its own, at once and then every period, until stopped. The thread
// may run on the CPUs that were allowed when the Sampler was made: a thread that is pinned later,
// and is being measured, need not share its CPU with it.
class Sampler {
 public:
  explicit Sampler(double period_seconds);
  ~Sampler() { stop(); }
  void start(std::function<void()> sample);
  void stop();

 private:
  double period_seconds_;
  cpu_set_t allowed_{};
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
};

}  // namespace tandem
