// Rows of random weights, made where they are used: the twin of make_random_row, to the bit.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/check.h"
#include "kernels/cuda/device_work.h"

namespace tandem {
namespace {

// One block of threads a row.
__global__ void plain_rows(const RandomRows rows, int64_t N, uint16_t* data) {
  for (int64_t n = blockIdx.x; n < N; n += gridDim.x) {
    const uint64_t key = random_row_key(rows.seed, rows.K, n);
    for (int64_t k = threadIdx.x; k < rows.K; k += blockDim.x) {
      const float value = near_normal(random_word(key, k)) * rows.deviation;
      data[n * rows.K + k] = rows.packing == Packing::f16
                                 ? __half_as_ushort(__float2half_rn(value))
                                 : __bfloat16_as_ushort(__float2bfloat16_rn(value));
    }
  }
}

// A byte of a row of codes: of its random words, or of the numbers that begin each block.
__device__ uint8_t code_byte(const RandomRows& rows, uint64_t key, int64_t at) {
  if (rows.block_bytes > 0) {
    const int64_t in_block = at % rows.block_bytes;
    if (in_block < 2) return static_cast<uint8_t>(rows.scale >> (8 * in_block));
    if (rows.has_min && in_block < 4) return static_cast<uint8_t>(rows.min >> (8 * (in_block - 2)));
  }
  return static_cast<uint8_t>(random_word(key, at / 8) >> (at % 8 * 8));
}

__global__ void code_rows(const RandomRows rows, int64_t N, uint8_t* data, uint8_t* scales) {
  for (int64_t n = blockIdx.x; n < N; n += gridDim.x) {
    const uint64_t key = random_row_key(rows.seed, rows.K, n);
    for (int64_t at = threadIdx.x; at < rows.row_bytes; at += blockDim.x) {
      data[n * rows.row_bytes + at] = code_byte(rows, key, at);
    }
    const int64_t bytes = rows.groups * rows.scale_bytes;
    for (int64_t at = threadIdx.x; at < bytes; at += blockDim.x) {
      scales[n * bytes + at] = static_cast<uint8_t>(rows.scale >> (at % rows.scale_bytes * 8));
    }
  }
}

}  // namespace

void cuda_random_rows(const RandomRows& rows, int64_t N, std::byte* data, std::byte* scales,
                      cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(N < 65536 ? N : 65536);
  if (rows.packing == Packing::bf16 || rows.packing == Packing::f16) {
    plain_rows<<<blocks, 256, 0, stream>>>(rows, N, reinterpret_cast<uint16_t*>(data));
  } else {
    code_rows<<<blocks, 256, 0, stream>>>(rows, N, reinterpret_cast<uint8_t*>(data),
                                          reinterpret_cast<uint8_t*>(scales));
  }
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace tandem
