// Bounds on work: in processor time, which other programs on the machine do not stretch.
#pragma once

#include <ctime>

namespace tandem {

// Seconds of this process's processors since `start`, which std::clock() gave.
inline double cpu_seconds_since(std::clock_t start) {
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

}  // namespace tandem
