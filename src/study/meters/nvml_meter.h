// Energy of a GPU: the counter that NVML keeps of the board, and samples of its instant power
// beside.
#pragma once

#include <memory>
#include <string>

#include "study/meters/energy.h"
#include "study/meters/nvml.h"

namespace tandem {

// The GPU at a PCI address. A window is not measured when heat, the hardware or a power brake
// slowed the GPU down in it; a software power cap, and a counter that differs from the samples by
// more than 5 %, mark it. Null with the reason when NVML cannot tell, or other processes use the
// GPU too.
std::unique_ptr<EnergyMeter> open_nvml_meter(const std::string& pci_address, std::string& reason,
                                             const char* library = kNvmlLibrary);

}  // namespace tandem
