#include "study/meters/memory.h"

#include <charconv>
#include <fstream>
#include <sstream>

#include "base/error.h"

namespace tandem {

uint64_t status_field_bytes(std::string_view status, std::string_view field) {
  size_t at = status.find(field);
  if (at == std::string_view::npos) return 0;
  at = status.find_first_of("0123456789\n", at + field.size());
  if (at == std::string_view::npos) return 0;
  uint64_t kilobytes = 0;
  std::from_chars(status.data() + at, status.data() + status.size(), kilobytes);
  return kilobytes * 1024;
}

uint64_t peak_resident_bytes() {
  std::ifstream file("/proc/self/status");
  std::ostringstream text;
  text << file.rdbuf();
  const uint64_t peak = status_field_bytes(text.str(), "VmHWM:");
  if (peak == 0) fail(ErrorKind::system, "/proc/self/status: gives no VmHWM");
  return peak;
}

}  // namespace tandem
