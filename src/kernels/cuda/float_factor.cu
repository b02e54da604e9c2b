// What the factor of H^-1 needs besides large products (compress/inverse_factor.h): H in reversed
// order, the blocks on the diagonal, the triangle flipped back.
#include "kernels/cuda/check.h"
#include "kernels/cuda/float_kernels.h"

namespace tandem {
namespace {

constexpr int kTile = 32, kTileRows = 8;
constexpr int kBlock = static_cast<int>(kFactorBlock), kStride = kBlock + 1;
constexpr int kBlockBytes = 2 * kBlock * kStride * static_cast<int>(sizeof(float));

// a(j, i) = a(i, j) for i < j: blocks of threads have tiles on and above the diagonal.
__global__ void mirror_kernel(float* a, int64_t n, float* diagonal) {
  __shared__ float tile[kTile][kTile + 1];
  const int64_t i0 = static_cast<int64_t>(blockIdx.y) * kTile;
  const int64_t j0 = static_cast<int64_t>(blockIdx.x) * kTile;
  if (j0 < i0) return;
  for (int y = threadIdx.y; y < kTile; y += kTileRows) {
    const int64_t i = i0 + y, j = j0 + threadIdx.x;
    if (i < n && j < n) tile[y][threadIdx.x] = a[i * n + j];
    if (i == j && i < n) diagonal[i] = a[i * n + i];
  }
  __syncthreads();
  for (int y = threadIdx.y; y < kTile; y += kTileRows) {
    const int64_t j = j0 + y, i = i0 + threadIdx.x;  // of the lower triangle: row j, column i
    if (i < n && j < n && i < j) a[j * n + i] = tile[threadIdx.x][y];
  }
}

__global__ void reversed_kernel(const float* gram, int64_t n, const int32_t* channels,
                                const uint8_t* dead, float added, float* out) {
  const int64_t i = blockIdx.x, at = n - 1 - i;
  const int64_t row = channels != nullptr ? channels[at] : at;
  for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {
    const int64_t column = channels != nullptr ? channels[n - 1 - j] : n - 1 - j;
    float value = gram[min(row, column) * n + max(row, column)];
    if (i == j) value = (dead[row] != 0 ? 1.0f : value) + added;
    out[i * n + j] = value;
  }
}

// One block of threads, 32 x 32.
__global__ void __launch_bounds__(1024)
    factor_kernel(float* a, int64_t n, int size, float* inverse, int32_t* failed) {
  extern __shared__ float shared[];
  float *r = shared, *x = shared + kBlock * kStride;
  const int tx = threadIdx.x, ty = threadIdx.y, thread = ty * 32 + tx;
  for (int i = ty; i < size; i += 32) {
    for (int j = tx; j < size; j += 32) r[i * kStride + j] = j >= i ? a[i * n + j] : 0.0f;
  }
  __syncthreads();
  for (int i = 0; i < size; ++i) {
    const float pivot = r[i * kStride + i];
    if (thread == 0 && !(pivot > 0.0f && isfinite(pivot))) *failed = 1;
    __syncthreads();
    const float root = 1.0f / sqrtf(pivot);
    if (thread >= i && thread < size) r[i * kStride + thread] *= root;
    __syncthreads();
    for (int j = i + 1 + ty; j < size; j += 32) {
      const float left = r[i * kStride + j];
      for (int k = j + tx; k < size; k += 32) r[j * kStride + k] -= left * r[i * kStride + k];
    }
    __syncthreads();
  }
  // Column `thread` of R^-1, from its diagonal upwards.
  if (thread < size) {
    const int j = thread;
    for (int i = size - 1; i >= 0; --i) {
      float sum = i == j ? 1.0f : 0.0f;
      for (int k = i + 1; k <= j; ++k) sum -= r[i * kStride + k] * x[k * kStride + j];
      x[i * kStride + j] = i <= j ? sum / r[i * kStride + i] : 0.0f;
    }
  }
  __syncthreads();
  for (int i = ty; i < size; i += 32) {
    for (int j = tx; j < size; j += 32) {
      if (j >= i) a[i * n + j] = r[i * kStride + j];
      inverse[i * kBlock + j] = x[i * kStride + j];
    }
  }
}

__global__ void flip_kernel(const float* a, int64_t n, float* out) {
  __shared__ float tile[kTile][kTile + 1];
  const int64_t i0 = static_cast<int64_t>(blockIdx.y) * kTile;
  const int64_t j0 = static_cast<int64_t>(blockIdx.x) * kTile;
  // out(i, j) = a(n-1-j, n-1-i): rows of a are read along columns of out.
  for (int y = threadIdx.y; y < kTile; y += kTileRows) {
    const int64_t j = j0 + y, i = i0 + threadIdx.x;
    tile[y][threadIdx.x] = i < n && j < n && i <= j ? a[(n - 1 - j) * n + n - 1 - i] : 0.0f;
  }
  __syncthreads();
  for (int y = threadIdx.y; y < kTile; y += kTileRows) {
    const int64_t i = i0 + y, j = j0 + threadIdx.x;
    if (i < n && j < n) out[i * n + j] = tile[threadIdx.x][y];
  }
}

dim3 tiles_of(int64_t n) {
  const auto tiles = static_cast<unsigned>((n + kTile - 1) / kTile);
  return {tiles, tiles};
}

}  // namespace

void cuda_mirror(float* a, int64_t n, float* diagonal, cudaStream_t stream) {
  mirror_kernel<<<tiles_of(n), dim3(kTile, kTileRows), 0, stream>>>(a, n, diagonal);
  CUDA_CHECK(cudaGetLastError());
}

void cuda_damped_reversed(const float* gram, int64_t n, const int32_t* channels,
                          const uint8_t* dead, float added, float* out, cudaStream_t stream) {
  reversed_kernel<<<static_cast<unsigned>(n), 256, 0, stream>>>(gram, n, channels, dead, added,
                                                                out);
  CUDA_CHECK(cudaGetLastError());
}

void cuda_factor_block(float* a, int64_t n, int64_t size, float* inverse, int32_t* failed,
                       cudaStream_t stream) {
  CUDA_DOOR(size > 0 && size <= kFactorBlock, size);
  CUDA_CHECK(cudaFuncSetAttribute(factor_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  kBlockBytes));
  factor_kernel<<<1, dim3(32, 32), kBlockBytes, stream>>>(a, n, static_cast<int>(size), inverse,
                                                          failed);
  CUDA_CHECK(cudaGetLastError());
}

void cuda_flip_upper(const float* a, int64_t n, float* out, cudaStream_t stream) {
  flip_kernel<<<tiles_of(n), dim3(kTile, kTileRows), 0, stream>>>(a, n, out);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace tandem
