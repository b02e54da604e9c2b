#include "study/meters/energy.h"

#include <chrono>

#include "study/meters/command.h"
#include "study/meters/nvml_meter.h"
#include "study/meters/rapl.h"

namespace tandem {

std::unique_ptr<EnergyMeter> open_energy_meter(const MeterChoice& choice, std::string& reason) {
  if (!choice.power_command.empty()) return open_command_meter(choice.power_command, reason);
  if (!choice.gpu_pci_address.empty()) return open_nvml_meter(choice.gpu_pci_address, reason);
  return open_rapl_meter(choice.powercap_root, reason);
}

Sampler::Sampler(double period_seconds) : period_seconds_(period_seconds) {
  sched_getaffinity(0, sizeof allowed_, &allowed_);
}

void Sampler::start(std::function<void()> sample) {
  stop();
  stopping_ = false;
  thread_ = std::thread([this, sample = std::move(sample)] {
    sched_setaffinity(0, sizeof allowed_, &allowed_);
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      lock.unlock();
      sample();
      lock.lock();
      wake_.wait_for(lock, std::chrono::duration<double>(period_seconds_),
                     [this] { return stopping_; });
    }
  });
}

void Sampler::stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

}  // namespace tandem
