// The rows that each kernel file contributes to the table.
#pragma once

#include <span>

#include "kernels/multiply.h"
#include "kernels/ops.h"

namespace tandem {

std::span<const LinearKernel> ref_linear_kernels();
std::span<const LinearKernel> avx2_linear_kernels();
std::span<const LinearKernel> avx512_linear_kernels();
std::span<const LinearKernel> cuda_linear_kernels();  // empty in a build without CUDA
std::span<const LinearKernel> older_cuda_linear_kernels();  // of GPUs that are not Hopper
const OpSet& ref_ops();
const OpSet& avx2_ops();
const OpSet& avx512_ops();
void ref_multiply(ThreadPool& pool, const Product& product);
Multiply avx2_multiply();
Multiply avx512_multiply();
const OpSet* cuda_ops();  // null in a build without CUDA
std::span<const OpSet> older_cuda_ops();
// Why a generation that has no row for this packing cannot have one: " (its tensor cores have no bf16)"; empty: the
// row is only missing.
const char* cuda_reason(std::string_view isa, Packing packing);

class Device;
struct DeviceFacts;
// cap: the generation of the kernels to run; empty: the newest that the GPU runs. Both throw
// no_device.
std::shared_ptr<Device> open_cuda_device(int index, std::string_view cap);
DeviceFacts describe_cuda_device(int index, std::string_view cap);

// Below this largest element, 127 / max|x| overflows: such a block is quantized to zero codes.
inline constexpr float kSmallestMaxAbs = 1e-36f;
// The same for a head of the KV cache: 448 / max|x| overflows sooner.
constexpr float kv_smallest_max_abs(KvType type) {
  return type == KvType::fp8 ? 4 * kSmallestMaxAbs : kSmallestMaxAbs;
}

// Bytes of all parts of a matrix as the file holds them: what a kernel must at least read.
inline uint64_t total_bytes(const std::vector<Weight>& parts) {
  uint64_t sum = 0;
  for (const Weight& part : parts) sum += part.total_bytes();
  return sum;
}

}  // namespace tandem
