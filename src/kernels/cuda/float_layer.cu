// A layer's ops in fp32 over whole sequences of one length, which keep no cache, and the magnitudes
// of a linear's inputs.
#include "kernels/cuda/check.h"
#include "kernels/cuda/float_kernels.h"

namespace tandem {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

__device__ float warp_sum(float x) {
  for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(~0u, x, lane);
  return x;
}
__device__ float warp_largest(float x) {
  for (int lane = 16; lane > 0; lane /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, lane));
  return x;
}

// A warp has a head of a token.
__global__ void __launch_bounds__(kThreads)
    rotate_kernel(float* qkv, const HeadTransform transform, const float* cos_sin,
                  const HeadShape shape) {
  const int64_t heads = shape.H + 2 * shape.G;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (item >= shape.T * heads) return;
  const int64_t t = item / heads, head = item % heads, D = shape.D, half = D / 2;
  float* x = qkv + item * D;
  if (transform.bias != nullptr) {
    for (int64_t d = lane; d < D; d += 32) x[d] += transform.bias[head * D + d];
    __syncwarp();
  }
  if (head >= shape.H + shape.G) return;  // values are left as they are
  const float* weight = head < shape.H ? transform.q_norm : transform.k_norm;
  if (weight != nullptr) {
    float sum = 0;
    for (int64_t d = lane; d < D; d += 32) sum += x[d] * x[d];
    const float factor = rsqrtf(warp_sum(sum) / static_cast<float>(D) + transform.eps);
    for (int64_t d = lane; d < D; d += 32) x[d] *= factor * weight[d];
    __syncwarp();
  }
  const float* angles = cos_sin + t % shape.length * D;
  for (int64_t d = lane; d < half; d += 32) {
    const float low = x[d], high = x[d + half], c = angles[d], s = angles[half + d];
    x[d] = low * c - high * s;
    x[d + half] = high * c + low * s;
  }
}

// A warp has a query of a head.
__global__ void __launch_bounds__(kThreads)
    softmax_kernel(float* scores, int64_t rows, int64_t length, int64_t window) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (row >= rows) return;
  float* s = scores + row * length;
  const int64_t t = row % length;
  const int64_t first = window == 0 || t < window ? 0 : t + 1 - window;
  float largest = -INFINITY;
  for (int64_t k = first + lane; k <= t; k += 32) largest = fmaxf(largest, s[k]);
  largest = warp_largest(largest);
  float sum = 0;
  for (int64_t k = lane; k < length; k += 32) {
    const float p = k >= first && k <= t ? expf(s[k] - largest) : 0.0f;
    s[k] = p;
    sum += p;
  }
  const float factor = 1.0f / warp_sum(sum);
  for (int64_t k = lane; k < length; k += 32) s[k] *= factor;
}

// A thread has a channel of a run of tokens. As whole numbers, magnitudes order like floats, NaN
// above infinity.
__global__ void __launch_bounds__(kThreads)
    magnitudes_kernel(const float* x, int64_t T, int64_t K, double* part_sums,
                      float* part_largest) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (k >= K) return;
  const int64_t part = blockIdx.y, end = (part + 1) * T / kMagnitudeParts;
  double sum = 0;
  int largest = 0;
  for (int64_t t = part * T / kMagnitudeParts; t < end; ++t) {
    const float magnitude = fabsf(x[t * K + k]);
    sum += magnitude;
    largest = max(largest, __float_as_int(magnitude));
  }
  part_sums[part * K + k] = sum;
  part_largest[part * K + k] = __int_as_float(largest);
}

__global__ void __launch_bounds__(kThreads)
    add_parts_kernel(const double* part_sums, const float* part_largest, int64_t K, double* sums,
                     float* largest) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (k >= K) return;
  double sum = sums[k];
  int most = __float_as_int(largest[k]);
  for (int64_t part = 0; part < kMagnitudeParts; ++part) {
    sum += part_sums[part * K + k];
    most = max(most, __float_as_int(part_largest[part * K + k]));
  }
  sums[k] = sum;
  largest[k] = __int_as_float(most);
}

unsigned blocks_of(int64_t count, int64_t each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

}  // namespace

void cuda_rotate_heads(float* qkv, const HeadTransform& transform, const float* cos_sin,
                       const HeadShape& shape, cudaStream_t stream) {
  CUDA_DOOR(shape.D % 2 == 0 && shape.T % shape.length == 0, shape.D, shape.T, shape.length);
  const int64_t items = shape.T * (shape.H + 2 * shape.G);
  rotate_kernel<<<blocks_of(items, kWarps), kThreads, 0, stream>>>(qkv, transform, cos_sin, shape);
  CUDA_CHECK(cudaGetLastError());
}

void cuda_causal_softmax(float* scores, int64_t batches, int64_t length, int64_t window,
                         cudaStream_t stream) {
  const int64_t rows = batches * length;
  softmax_kernel<<<blocks_of(rows, kWarps), kThreads, 0, stream>>>(scores, rows, length, window);
  CUDA_CHECK(cudaGetLastError());
}

void cuda_add_magnitudes(const float* x, int64_t T, int64_t K, double* part_sums,
                         float* part_largest, double* sums, float* largest, cudaStream_t stream) {
  const dim3 grid(blocks_of(K, kThreads), static_cast<unsigned>(kMagnitudeParts));
  magnitudes_kernel<<<grid, kThreads, 0, stream>>>(x, T, K, part_sums, part_largest);
  add_parts_kernel<<<blocks_of(K, kThreads), kThreads, 0, stream>>>(part_sums, part_largest, K,
                                                                    sums, largest);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace tandem
