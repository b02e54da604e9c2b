#include "kernels/device.h"

#include <charconv>

#include "base/error.h"
#include "kernels/rows.h"

namespace tandem {
namespace {

constexpr std::string_view kCuda = "cuda";

int index_of(std::string_view name) {
  if (name == kCuda) return 0;
  int index = 0;
  const std::string_view digits = name.substr(std::min(name.size(), kCuda.size() + 1));
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  if (!names_device(name) || error != std::errc() || end != digits.data() + digits.size() ||
      index < 0) {
    fail(ErrorKind::usage, "device {}; expected cuda or cuda:N, N from 0", quote(name));
  }
  return index;
}

}  // namespace

bool names_device(std::string_view name) {
  return name == kCuda || (name.starts_with(kCuda) && name.substr(kCuda.size()).starts_with(':'));
}

std::shared_ptr<Device> open_device(std::string_view name) {
  return open_cuda_device(index_of(name));
}

DeviceFacts describe_device(std::string_view name) { return describe_cuda_device(index_of(name)); }

}  // namespace tandem
