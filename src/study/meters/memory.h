// What this process occupies, as the kernel counts it.
#pragma once

#include <cstdint>
#include <string_view>

namespace tandem {

// Resident memory at its highest since the program started, mapped file pages included, in bytes.
// Throws system when the kernel does not say.
uint64_t peak_resident_bytes();

// The field "VmHWM:" or the like, given in kB, of a /proc/PID/status text, in bytes; 0 when absent.
uint64_t status_field_bytes(std::string_view status, std::string_view field);

}  // namespace tandem
