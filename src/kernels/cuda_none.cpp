// What a build without CUDA has in the place of kernels/cuda.
#include "base/error.h"
#include "kernels/device.h"
#include "kernels/float_work.h"
#include "kernels/rows.h"

namespace tandem {

std::span<const LinearKernel> cuda_linear_kernels() { return {}; }
std::span<const LinearKernel> older_cuda_linear_kernels() { return {}; }
const OpSet* cuda_ops() { return nullptr; }
std::span<const OpSet> older_cuda_ops() { return {}; }
const char* cuda_reason(std::string_view, Packing) { return ""; }

DeviceFacts describe_cuda_device(int, std::string_view) {
  fail(ErrorKind::no_device,
       "this build has no CUDA kernels; build where nvcc 13 is found, or with -DTANDEM_CUDA=ON");
}
std::shared_ptr<Device> open_cuda_device(int index, std::string_view cap) {
  describe_cuda_device(index, cap);
  return nullptr;
}

std::unique_ptr<FloatWork> make_float_work(Device&) { return nullptr; }  // there is no Device

}  // namespace tandem
