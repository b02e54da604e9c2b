// Power from any meter that a command can read: the first number it prints is watts.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "study/meters/energy.h"

namespace tandem {

// Runs the command with /bin/sh every 200 ms while a window is open. Null with the reason when a
// first try fails: it exits non-zero, prints no number, or takes longer than 2 s.
std::unique_ptr<EnergyMeter> open_command_meter(const std::string& command, std::string& reason);

// The first decimal number in the text, with a point whatever the locale.
std::optional<double> first_number(std::string_view text);

}  // namespace tandem
