#include "study/meters/rapl.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <vector>

#include "base/clock.h"

namespace tandem {
namespace {

std::optional<uint64_t> read_number(const std::filesystem::path& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (!(file >> value)) return std::nullopt;
  return value;
}

struct Domain {
  std::filesystem::path counter;
  uint64_t range_microjoules = 0;
  std::vector<CounterSample> samples;
  bool unreadable = false;

  void sample() {
    const std::optional<uint64_t> value = read_number(counter);
    if (value) {
      samples.push_back({static_cast<double>(now_ns()) * 1e-9, *value});
    } else {
      unreadable = true;
    }
  }
};

class RaplMeter : public EnergyMeter {
 public:
  explicit RaplMeter(std::vector<Domain> domains) : domains_(std::move(domains)) {}

  std::string source() const override {
    return fmt::format("RAPL package ({} {})", domains_.size(),
                       domains_.size() == 1 ? "socket" : "sockets");
  }
  void start() override {
    sampler_.stop();
    for (Domain& domain : domains_) {
      domain.samples.clear();
      domain.unreadable = false;
      domain.sample();
    }
    sampler_.start([this] { sample_all(); });
  }
  EnergyReading stop() override {
    sampler_.stop();
    sample_all();
    EnergyReading total;
    total.joules = 0;
    for (const Domain& domain : domains_) {
      EnergyReading reading = integrate_counter(domain.samples, domain.range_microjoules);
      if (domain.unreadable) {
        reading.joules.reset();
        reading.reason = domain.counter.string() + " could not be read";
      }
      if (!reading.joules) return reading;
      *total.joules += *reading.joules;
      total.seconds = reading.seconds;
      total.num_samples = reading.num_samples;
    }
    return total;
  }

 private:
  void sample_all() {
    for (Domain& domain : domains_) domain.sample();
  }

  std::vector<Domain> domains_;
  Sampler sampler_{0.2};
};

}  // namespace

std::unique_ptr<EnergyMeter> open_rapl_meter(const std::filesystem::path& root,
                                             std::string& reason) {
  std::vector<Domain> domains;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(root, error), end; !error && entry != end;
       entry.increment(error)) {
    std::string name;
    std::ifstream(entry->path() / "name") >> name;
    if (name.rfind("package-", 0) != 0) continue;
    Domain domain;
    domain.counter = entry->path() / "energy_uj";
    domain.range_microjoules = read_number(entry->path() / "max_energy_range_uj").value_or(0);
    if (!read_number(domain.counter)) {
      reason = domain.counter.string() + " may not be read (needs root)";
      return nullptr;
    }
    domains.push_back(std::move(domain));
  }
  if (domains.empty()) {
    reason = "no RAPL package counter under " + root.string() + " and no --power-command";
    return nullptr;
  }
  std::sort(domains.begin(), domains.end(),
            [](const Domain& a, const Domain& b) { return a.counter < b.counter; });
  return std::make_unique<RaplMeter>(std::move(domains));
}

}  // namespace tandem
