// The rows that each kernel file contributes to the table.
#pragma once

#include <span>

#include "kernels/ops.h"

namespace tandem {

std::span<const LinearKernel> ref_linear_kernels();
std::span<const LinearKernel> avx2_linear_kernels();
std::span<const LinearKernel> avx512_linear_kernels();
std::span<const LinearKernel> cuda_linear_kernels();  // empty in a build without CUDA
const OpSet& ref_ops();
const OpSet& avx2_ops();
const OpSet& avx512_ops();
const OpSet* cuda_ops();  // null in a build without CUDA

class Device;
struct DeviceFacts;
std::shared_ptr<Device> open_cuda_device(int index);  // throws no_device
DeviceFacts describe_cuda_device(int index);          // throws no_device

// Below this largest element, 127 / max|x| overflows: such a block is quantized to zero codes.
inline constexpr float kSmallestMaxAbs = 1e-36f;

// Bytes of all parts of a matrix as the file holds them: what a kernel must at least read.
inline uint64_t total_bytes(const std::vector<Weight>& parts) {
  uint64_t sum = 0;
  for (const Weight& part : parts) sum += part.total_bytes();
  return sum;
}

}  // namespace tandem
