// GPTQ's loop (compress/gptq.cpp) over a block of columns: a warp has a row, its lanes the columns
// lane, lane + 32, ... of the block in registers. The products that carry the errors to the columns
// behind the block are the library's.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/check.h"
#include "kernels/cuda/float_kernels.h"

namespace tandem {
namespace {

constexpr int kColumns = static_cast<int>(ColumnRounding::kBlockColumns), kEach = kColumns / 32;
constexpr int kWarps = 16, kThreads = kWarps * 32;
constexpr int kSharedBytes = (kColumns + kWarps) * kColumns * static_cast<int>(sizeof(float));
constexpr int kSearchSteps = 80;

struct Fit {
  float scale;
  float zero;
};

// stored_scale of compress/integer_grid.h.
__device__ float stored_scale(float value, ScaleType type) {
  if (type == ScaleType::bf16) {
    const float stored = __bfloat162float(__float2bfloat16_rn(fminf(value, 0x1.FEp127f)));
    return stored == 0.0f ? 0x1p-7f : stored;
  }
  if (type == ScaleType::f16) {
    const float stored = __half2float(__float2half_rn(fminf(value, 65504.0f)));
    return stored == 0.0f ? 0x1p-10f : stored;
  }
  return value == 0.0f ? 0x1p-23f : value;
}

__device__ Fit fit_range(const RoundingGrid& grid, float low, float high) {
  const auto steps = static_cast<float>((1 << grid.bits) - 1);
  if (grid.symmetric) {
    return {stored_scale(fmaxf(-low, high) / (steps / 2), grid.scale_type),
            static_cast<float>(1 << (grid.bits - 1))};
  }
  const float scale = stored_scale((high - low) / steps, grid.scale_type);
  return {scale, fminf(fmaxf(rintf(-low / scale), 0.0f), steps)};
}

__device__ float code_of(const RoundingGrid& grid, const Fit& fit, float w) {
  const auto most = static_cast<float>((1 << grid.bits) - 1);
  return fminf(fmaxf(rintf(w / fit.scale) + fit.zero, 0.0f), most);
}
__device__ float value_of(const Fit& fit, float code) { return (code - fit.zero) * fit.scale; }

// The grid of value(0), ..., value(n - 1), found by a warp.
template <typename Value>
__device__ Fit fit_group(const RoundingGrid& grid, int64_t n, const Value& value) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  float low = 0, high = 0;
  for (int64_t i = lane; i < n; i += 32) {
    low = fminf(low, value(i));
    high = fmaxf(high, value(i));
  }
  for (int other = 16; other > 0; other /= 2) {
    low = fminf(low, __shfl_xor_sync(~0u, low, other));
    high = fmaxf(high, __shfl_xor_sync(~0u, high, other));
  }
  if (!grid.searches) return fit_range(grid, low, high);
  Fit best{};
  double least = INFINITY;
  for (int step = 0; step < kSearchSteps; ++step) {
    const float share = 1.0f - 0.01f * static_cast<float>(step);
    const Fit fit = fit_range(grid, low * share, high * share);
    double error = 0;
    for (int64_t i = lane; i < n; i += 32) {
      const float w = value(i);
      error += pow(static_cast<double>(fabsf(w - value_of(fit, code_of(grid, fit, w)))), 2.4);
    }
    for (int other = 16; other > 0; other /= 2) error += __shfl_xor_sync(~0u, error, other);
    if (error < least) {
      least = error;
      best = fit;
    }
  }
  return best;
}

__device__ int64_t channel_of(const ColumnRounding& r, int64_t position) {
  return r.channels != nullptr ? r.channels[position] : position;
}
__device__ int64_t column_of(const ColumnRounding& r, int64_t position) {
  return r.columns != nullptr ? r.columns[position] : position;
}

// A block of threads has a row: what is dead or pruned becomes 0.
__global__ void clear_kernel(const ColumnRounding r) {
  const int64_t n = blockIdx.x;
  for (int64_t k = threadIdx.x; k < r.K; k += blockDim.x) {
    if (r.dead[k] != 0 || (r.keep != nullptr && r.keep[n * r.K + k] == 0)) r.w[n * r.K + k] = 0.0f;
  }
}

__global__ void order_kernel(const ColumnRounding r) {
  const int64_t n = blockIdx.x;
  for (int64_t p = threadIdx.x; p < r.K; p += blockDim.x) {
    r.spare[n * r.K + p] = r.w[n * r.K + r.channels[p]];
  }
}

// A warp has a group of neighbouring channels.
__global__ void __launch_bounds__(256) fit_kernel(const ColumnRounding r) {
  const int64_t group = static_cast<int64_t>(blockIdx.x) * 8 + threadIdx.x / 32;
  if (group >= r.N * (r.K / r.grid.group)) return;
  const float* w = r.w + group * r.grid.group;
  const Fit fit = fit_group(r.grid, r.grid.group, [&](int64_t i) { return w[i]; });
  if (threadIdx.x % 32 != 0) return;
  r.scales[group] = fit.scale;
  r.zeros[group] = static_cast<uint8_t>(fit.zero);
}

__global__ void __launch_bounds__(kThreads)
    round_kernel(const ColumnRounding r, const float* w_in_order, int64_t begin, int count) {
  extern __shared__ float shared[];
  float* u = shared;  // [kColumns, kColumns] of the factor, 0 beyond count
  for (int i = static_cast<int>(threadIdx.x); i < kColumns * kColumns; i += kThreads) {
    const int row = i / kColumns, column = i % kColumns;
    const bool is_there = row < count && column < count;
    u[i] = is_there ? r.factor[(begin + row) * r.K + begin + column] : 0.0f;
  }
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  float* stale = shared + (kColumns + warp) * kColumns;  // the row as a fit sees it
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  if (n >= r.N) return;
  const float* row = w_in_order + n * r.K;
  const int64_t group = r.grid.group, groups = r.K / group;
  float w[kEach], errors[kEach], codes[kEach];
  Fit fits[kEach], fit{};
  bool kept[kEach];
#pragma unroll
  for (int m = 0; m < kEach; ++m) {
    const int j = lane + 32 * m;
    w[m] = errors[m] = codes[m] = 0.0f;
    kept[m] = true;
    fits[m] = {1.0f, 0.0f};
    if (j >= count) continue;
    w[m] = row[begin + j];
    if (r.keep != nullptr) kept[m] = r.keep[n * r.K + channel_of(r, begin + j)] != 0;
    // Where groups are fitted on the way and one began in an earlier block, its fit is there too.
    const int64_t at = n * groups + column_of(r, begin + j) / group;
    fits[m] = {r.scales[at], static_cast<float>(r.zeros[at])};
  }
  if (!r.fits_first) fit = {__shfl_sync(~0u, fits[0].scale, 0), __shfl_sync(~0u, fits[0].zero, 0)};
#pragma unroll
  for (int m = 0; m < kEach; ++m) {
    for (int l = 0; l < 32 && 32 * m + l < count; ++l) {
      const int i = 32 * m + l;
      if (!r.fits_first && (begin + i) % group == 0) {
#pragma unroll
        for (int q = 0; q < kEach; ++q) stale[lane + 32 * q] = w[q];
        __syncwarp();
        fit = fit_group(r.grid, group, [&](int64_t k) {
          const int64_t position = begin + i + k;
          if (r.keep != nullptr && r.keep[n * r.K + channel_of(r, position)] == 0) return 0.0f;
          return i + k < count ? stale[i + k] : row[position];
        });
        __syncwarp();
        const int64_t at = n * groups + column_of(r, begin + i) / group;
        if (lane == 0) {
          r.scales[at] = fit.scale;
          r.zeros[at] = static_cast<uint8_t>(fit.zero);
        }
      }
      if (r.fits_first) {
        fit = {__shfl_sync(~0u, fits[m].scale, l), __shfl_sync(~0u, fits[m].zero, l)};
      }
      const float x = __shfl_sync(~0u, w[m], l);
      const bool is_kept = __shfl_sync(~0u, static_cast<int>(kept[m]), l) != 0;
      const float code = is_kept ? code_of(r.grid, fit, x) : fit.zero;
      const float error = (x - value_of(fit, code)) / u[i * kColumns + i];
#pragma unroll
      for (int q = m; q < kEach; ++q) w[q] -= error * u[i * kColumns + lane + 32 * q];
      if (lane == l) {
        errors[m] = error;
        codes[m] = code;
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kEach; ++m) {
    const int j = lane + 32 * m;
    if (j >= count) continue;
    r.errors[n * count + j] = errors[m];
    r.codes[n * r.K + column_of(r, begin + j)] = static_cast<uint8_t>(codes[m]);
  }
}

}  // namespace

void cuda_take_columns(const ColumnRounding& r, cudaStream_t stream) {
  const auto rows = static_cast<unsigned>(r.N);
  clear_kernel<<<rows, 256, 0, stream>>>(r);
  if (r.fits_first) {
    const int64_t groups = r.N * (r.K / r.grid.group);
    fit_kernel<<<static_cast<unsigned>((groups + 7) / 8), 256, 0, stream>>>(r);
  }
  if (r.channels != nullptr) order_kernel<<<rows, 256, 0, stream>>>(r);
  CUDA_CHECK(cudaGetLastError());
}

void cuda_round_block(const ColumnRounding& r, int64_t begin, int64_t count, cudaStream_t stream) {
  CUDA_DOOR(count > 0 && count <= kColumns && r.K % r.grid.group == 0, count, r.K, r.grid.group);
  CUDA_CHECK(cudaFuncSetAttribute(round_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  kSharedBytes));
  const auto blocks = static_cast<unsigned>((r.N + kWarps - 1) / kWarps);
  const float* w = r.channels != nullptr ? r.spare : r.w;
  round_kernel<<<blocks, kThreads, kSharedBytes, stream>>>(r, w, begin, static_cast<int>(count));
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace tandem
