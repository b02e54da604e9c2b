// Rows of random weights, made where they are used: the twin of make_random_row, to the bit.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "kernels/cuda/check.h"
#include "kernels/cuda/device_work.h"

namespace tandem {
namespace {

__device__ void put_number(const RandomRows& rows, uint64_t word, int64_t k, uint8_t* row) {
  const float value = near_normal(word) * rows.deviation;
  if (rows.numbers == RandomRows::Numbers::e4m3) {
    row[k] = __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
    return;
  }
  reinterpret_cast<uint16_t*>(row)[k] = rows.numbers == RandomRows::Numbers::f16
                                            ? __half_as_ushort(__float2half_rn(value))
                                            : __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

// One block of threads a row. Rows of 16-bit numbers are of even bytes.
__global__ void random_rows(const RandomRows rows, int64_t N, uint8_t* data, uint8_t* scales) {
  for (int64_t n = blockIdx.x; n < N; n += gridDim.x) {
    const uint64_t key = random_row_key(rows.seed, rows.K, n);
    uint8_t* row = data + n * rows.row_bytes;
    for (int64_t k = threadIdx.x; k < rows.count; k += blockDim.x) {
      put_number(rows, random_word(key, k), k, row);
    }
    for (int64_t at = threadIdx.x; at < rows.code_bytes; at += blockDim.x) {
      row[at] = random_code(rows, key, at);
    }
    for (int64_t i = threadIdx.x; i < rows.place_bytes; i += blockDim.x) {
      row[rows.row_bytes - rows.place_bytes + i] = random_places(rows, key, i);
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
  random_rows<<<blocks, 256, 0, stream>>>(rows, N, reinterpret_cast<uint8_t*>(data),
                                          reinterpret_cast<uint8_t*>(scales));
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace tandem
