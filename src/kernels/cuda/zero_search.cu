// HQQ on a GPU (compress/hqq.h): a warp has a group, or a block of threads the groups of a row.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/check.h"
#include "kernels/cuda/float_kernels.h"

namespace tandem {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr float kLargestInverse = 2e4f, kSmallestRange = 1e-4f;

__device__ float rounded_scale(float scale, ScaleType type) {
  if (type == ScaleType::bf16) return __bfloat162float(__float2bfloat16_rn(scale));
  return type == ScaleType::f16 ? __half2float(__float2half_rn(scale)) : scale;
}

__device__ float warp_sum(float x) {
  for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(~0u, x, lane);
  return x;
}

__device__ float code_of(float w, float inverse, float zero, float largest) {
  return fminf(fmaxf(rintf(w * inverse + zero), 0.0f), largest);
}

__global__ void __launch_bounds__(kThreads) range_kernel(const ZeroSearch s) {
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (group >= s.N * (s.K / s.group)) return;
  const float* w = s.w + group * s.group;
  float low = s.spans_zero ? 0.0f : w[0], high = low;
  for (int64_t i = threadIdx.x % 32; i < s.group; i += 32) {
    low = fminf(low, w[i]);
    high = fmaxf(high, w[i]);
  }
  for (int lane = 16; lane > 0; lane /= 2) {
    low = fminf(low, __shfl_xor_sync(~0u, low, lane));
    high = fmaxf(high, __shfl_xor_sync(~0u, high, lane));
  }
  if (threadIdx.x % 32 != 0) return;
  const auto largest = static_cast<float>((1 << s.bits) - 1);
  const float inverse =
      high - low <= kSmallestRange ? 1.0f : fminf(largest / (high - low), kLargestInverse);
  const float scale = rounded_scale(1.0f / inverse, s.scale_type);
  s.scales[group] = scale;
  s.zeros[group] = -low / scale;
}

__global__ void __launch_bounds__(kThreads) move_kernel(const ZeroSearch s) {
  __shared__ double row_error[kWarps];
  const int64_t n = blockIdx.x, groups = s.K / s.group;
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  const auto largest = static_cast<float>((1 << s.bits) - 1);
  double error = 0;
  for (int64_t g = warp; g < groups; g += kWarps) {
    const float* w = s.w + n * s.K + g * s.group;
    const float scale = s.scales[n * groups + g], zero = s.zeros[n * groups + g];
    const float inverse = 1.0f / scale;
    float sum_error = 0, sum_zero = 0;
    for (int64_t i = lane; i < s.group; i += 32) {
      const float q = code_of(w[i], inverse, zero, largest);
      const float d = w[i] - (q - zero) * scale, magnitude = fabsf(d);
      sum_error += magnitude;
      sum_zero += q - w[i] * inverse;
      if (magnitude > s.threshold) {
        const float part = magnitude - powf(magnitude, s.p - 1.0f) / s.beta;
        if (part > 0.0f) sum_zero += copysignf(part, d) * inverse;
      }
    }
    sum_error = warp_sum(sum_error);
    sum_zero = warp_sum(sum_zero);
    error += sum_error;
    if (lane == 0) s.zeros[n * groups + g] = sum_zero / static_cast<float>(s.group);
  }
  if (lane == 0) row_error[warp] = error;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int other = 1; other < kWarps; ++other) error += row_error[other];
  s.row_errors[n] = error;
}

__global__ void __launch_bounds__(kThreads) code_kernel(const ZeroSearch s) {
  const int64_t n = blockIdx.x, groups = s.K / s.group;
  const auto largest = static_cast<float>((1 << s.bits) - 1);
  for (int64_t k = threadIdx.x; k < s.K; k += kThreads) {
    const int64_t at = n * groups + k / s.group;
    s.codes[n * s.K + k] = static_cast<uint8_t>(
        code_of(s.w[n * s.K + k], 1.0f / s.scales[at], s.zeros[at], largest));
  }
}

}  // namespace

void cuda_find_ranges(const ZeroSearch& s, cudaStream_t stream) {
  CUDA_DOOR(s.group > 0 && s.K % s.group == 0, s.K, s.group);
  const int64_t groups = s.N * (s.K / s.group);
  range_kernel<<<static_cast<unsigned>((groups + kWarps - 1) / kWarps), kThreads, 0, stream>>>(s);
  CUDA_CHECK(cudaGetLastError());
}

void cuda_move_zeros(const ZeroSearch& s, cudaStream_t stream) {
  move_kernel<<<static_cast<unsigned>(s.N), kThreads, 0, stream>>>(s);
  CUDA_CHECK(cudaGetLastError());
}

void cuda_make_codes(const ZeroSearch& s, cudaStream_t stream) {
  code_kernel<<<static_cast<unsigned>(s.N), kThreads, 0, stream>>>(s);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace tandem
