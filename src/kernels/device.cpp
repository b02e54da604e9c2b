#include "kernels/device.h"

#include <charconv>

#include "base/error.h"
#include "kernels/rows.h"

namespace tandem {
namespace {

constexpr std::string_view kCuda = "cuda";

struct CudaName {
  int index = 0;
  std::string_view cap;  // "sm_80"; empty: none
};

CudaName parse(std::string_view name) {
  CudaName parsed;
  const std::string_view whole = name;
  if (const size_t at = name.find('@'); at != name.npos) {
    parsed.cap = name.substr(at + 1);
    name = name.substr(0, at);
  }
  const bool knows_cap = parsed.cap == "sm_75" || parsed.cap == "sm_80" || parsed.cap == "sm_89";
  if (name.size() != whole.size() && !knows_cap) {
    fail(ErrorKind::usage, "device {}: found {}, expected sm_75, sm_80 or sm_89", quote(whole),
         quote(parsed.cap));
  }
  if (name == kCuda) return parsed;
  const std::string_view digits = name.substr(std::min(name.size(), kCuda.size() + 1));
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), parsed.index);
  if (!names_device(name) || error != std::errc() || end != digits.data() + digits.size() ||
      parsed.index < 0) {
    fail(ErrorKind::usage, "device {}; expected cuda or cuda:N, N from 0", quote(whole));
  }
  return parsed;
}

}  // namespace

bool names_device(std::string_view name) {
  if (!name.starts_with(kCuda)) return false;
  const std::string_view rest = name.substr(kCuda.size());
  return rest.empty() || rest[0] == ':' || rest[0] == '@';
}

std::shared_ptr<Device> open_device(std::string_view name) {
  const auto [index, cap] = parse(name);
  return open_cuda_device(index, cap);
}

DeviceFacts describe_device(std::string_view name) {
  const auto [index, cap] = parse(name);
  return describe_cuda_device(index, cap);
}

}  // namespace tandem
