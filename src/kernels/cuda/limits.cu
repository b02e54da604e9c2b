// The kernels behind a GPU's limits: a stream of reads, and nothing.
#include "kernels/cuda/check.h"
#include "kernels/cuda/device_work.h"
#include "kernels/cuda/warp.cuh"

namespace tandem {
namespace {

constexpr int kThreads = 512, kBlocksPerMultiprocessor = 4;  // all the threads one can hold
constexpr int kUnroll = 8;  // loads of 16 bytes under way in each thread

__global__ void __launch_bounds__(kThreads)
    read_kernel(const uint4* data, int64_t count, uint32_t* out) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  uint32_t folded = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += stride * kUnroll) {
    uint4 v[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      v[u] = i + u * stride < count ? load_stream(data + i + u * stride) : uint4{};
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) folded ^= v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
  }
  // Of random data no thread's fold is likely to be this; without a use no load would be left.
  if (folded == 0x9E3779B9u) *out = folded;
}

__global__ void empty_kernel() {}

}  // namespace

void cuda_read_stream(const std::byte* data, size_t bytes, uint32_t* out, int multiprocessors,
                      cudaStream_t stream) {
  read_kernel<<<static_cast<unsigned>(multiprocessors * kBlocksPerMultiprocessor), kThreads, 0,
                stream>>>(reinterpret_cast<const uint4*>(data), static_cast<int64_t>(bytes / 16),
                          out);
  CUDA_CHECK(cudaGetLastError());
}

void cuda_empty_kernel(cudaStream_t stream) {
  empty_kernel<<<1, 32, 0, stream>>>();
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace tandem
