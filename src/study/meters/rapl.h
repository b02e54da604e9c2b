// Energy of the processor packages as the kernel's powercap interface counts it (Intel and AMD).
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "study/meters/energy.h"

namespace tandem {

// Sums the domains named "package-N" below root. Null with the reason when there is none or it may
// not be read (the counters need root since Linux 5.10).
std::unique_ptr<EnergyMeter> open_rapl_meter(const std::filesystem::path& root,
                                             std::string& reason);

}  // namespace tandem
