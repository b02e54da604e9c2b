// Errors of the CUDA runtime as the program's: a call that fails names itself. And what .cu files
// use in the place of CHECK and fail, because nvcc 13 rejects fmt 9's compile-time check of format
// strings.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <initializer_list>

namespace tandem {

// Throws no_memory when the device's memory is spent, else system.
[[noreturn]] void cuda_failed(cudaError_t error, const char* what);

[[noreturn]] void cuda_check_failed(const char* file, int line, const char* condition,
                                    std::initializer_list<int64_t> values);
// Throws no_device: "SENTENCE FOUND".
[[noreturn]] void cuda_refuse(const char* sentence, int64_t found);

}  // namespace tandem

// CHECK of whole numbers.
#define CUDA_DOOR(condition, ...)                                                                 \
  do {                                                                                            \
    if (!(condition)) ::tandem::cuda_check_failed(__FILE__, __LINE__, #condition, {__VA_ARGS__}); \
  } while (false)

#define CUDA_CHECK(call)                                                       \
  do {                                                                         \
    const cudaError_t cuda_error_ = (call);                                    \
    if (cuda_error_ != cudaSuccess) ::tandem::cuda_failed(cuda_error_, #call); \
  } while (false)
