// What a GPU does besides a model's step: rows of random weights, and the measuring of its limits.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "tensor/random_rows.h"

namespace tandem {

class CudaDevice;
struct DeviceLimits;

// random_rows.cu: rows 0 ... N - 1, as make_random_row makes them.
void cuda_random_rows(const RandomRows& rows, int64_t N, std::byte* data, std::byte* scales,
                      cudaStream_t stream);

// limits.cu: reads `bytes`, a multiple of 16, in one pass; out has room for one word. And a kernel
// that does nothing.
void cuda_read_stream(const std::byte* data, size_t bytes, uint32_t* out, int multiprocessors,
                      cudaStream_t stream);
void cuda_empty_kernel(cudaStream_t stream);

// limits.cpp
DeviceLimits cuda_measure_limits(CudaDevice& device);

}  // namespace tandem
