// The ops between the linears and a step's ends, as elementwise.cu has them, with one block a token
// and nothing kept between two looks at a row. Quantization is that of kernels/ref/ops.cpp, to the
// bit.
#pragma once

#include <cuda_fp8.h>

#include <cmath>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/rows.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

constexpr int kRowThreads = 256;
static_assert(kRowThreads % kActBlock == 0 && kActBlock == 32, "a warp has a block of channels");

// Every thread of the block gets the result; `shared` is 32 numbers. 0 is neutral.
template <typename Warp>
__device__ float block_reduce(float v, float* shared, Warp warp_reduce) {
  v = warp_reduce(v);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
  __syncthreads();
  return warp_reduce(threadIdx.x % 32 < blockDim.x / 32 ? shared[threadIdx.x % 32] : 0.0f);
}

// Where a token's numbers come from: at(t, k, K, factor), factor what prepare() found for the row.
struct Values {
  const float* x;
  int64_t ldx;
  __device__ float prepare(int64_t, int64_t, float*) const { return 1; }
  __device__ float at(int64_t t, int64_t k, int64_t, float) const { return x[t * ldx + k]; }
};

struct Normed {
  const float* x;
  const float* weight;
  float eps;
  __device__ float prepare(int64_t t, int64_t K, float* shared) const {
    float sum = 0;
    for (int64_t k = threadIdx.x; k < K; k += blockDim.x) sum += x[t * K + k] * x[t * K + k];
    sum = block_reduce(sum, shared, [](float v) { return warp_sum(v); });
    return 1.0f / sqrtf(sum / static_cast<float>(K) + eps);
  }
  __device__ float at(int64_t t, int64_t k, int64_t K, float factor) const {
    return x[t * K + k] * factor * weight[k];
  }
};

struct Gated {
  const float* gate_up;  // [T, 2F]
  __device__ float prepare(int64_t, int64_t, float*) const { return 1; }
  __device__ float at(int64_t t, int64_t k, int64_t F, float) const {
    const float gate = gate_up[t * 2 * F + k], up = gate_up[t * 2 * F + F + k];
    return gate / (1.0f + expf(-gate)) * up;
  }
};

// |x|, infinite when x is not a number, so that a maximum shows it.
__device__ float seen_magnitude(float x) { return isfinite(x) ? fabsf(x) : INFINITY; }

// Codes are x * factor: 0 where the largest magnitude gives none, and then so are they.
__device__ float code_factor(float max_abs, float largest) {
  return max_abs > kSmallestMaxAbs && isfinite(max_abs) ? largest / max_abs : 0.0f;
}
__device__ float code_scale(float max_abs, float largest) {
  return isfinite(max_abs) ? max_abs / largest : NAN;
}
__device__ int int8_code(float x, float factor) {
  return factor > 0.0f ? __float2int_rn(x * factor) : 0;
}

// One scale for all: what lies beyond the largest code becomes that code.
__device__ float static_code(float x, float scale, float largest) {
  return fminf(fmaxf(x / scale, -largest), largest);
}
__device__ int8_t fp8_code(float x) {
  return static_cast<int8_t>(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3));
}

// A token's numbers value(k) with a scale for each kFp8Block channels, four warps'.
template <typename Value>
__device__ void write_fp8_blocks(const Activations& out, int64_t t, Value value, float* shared) {
  constexpr int kWarpsOfBlock = kFp8Block / 32;
  const int warp = threadIdx.x / 32, first_warp = warp / kWarpsOfBlock * kWarpsOfBlock;
  const int64_t padded = out.K_padded();
  for (int64_t begin = 0; begin < padded; begin += kRowThreads) {
    const int64_t k = begin + threadIdx.x;
    const float x = k < padded ? value(k) : 0.0f, of_warp = warp_max(seen_magnitude(x));
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[warp] = of_warp;
    __syncthreads();
    float max_abs = 0;
    for (int i = 0; i < kWarpsOfBlock; ++i) max_abs = fmaxf(max_abs, shared[first_warp + i]);
    if (k >= padded) continue;
    const float factor = code_factor(max_abs, kMaxE4M3);
    out.codes[t * padded + k] = factor > 0.0f ? fp8_code(x * factor) : int8_t{0};
    if (k % kFp8Block == 0)
      out.scales[k / kFp8Block * out.T + t] = code_scale(max_abs, kMaxE4M3);
  }
}

// The warp's 32 channels.
__device__ void write_block(float x, const Activations& out, int64_t t, int64_t k) {
  const float max_abs = warp_max(seen_magnitude(x));
  const int code = int8_code(x, code_factor(max_abs, 127.0f));
  const float sum = warp_sum(static_cast<float>(code));  // whole numbers: exact
  out.codes[t * out.K_padded() + k] = static_cast<int8_t>(code);
  if (threadIdx.x % 32 != 0) return;
  const float scale = code_scale(max_abs, 127.0f);
  out.scales[k / kActBlock * out.T + t] = scale;
  out.sums[k / kActBlock * out.T + t] = scale * sum;
}

template <typename Source>
__global__ void __launch_bounds__(kRowThreads)
    row_kernel(const Source source, const Activations out) {
  __shared__ float shared[32];
  const int64_t t = blockIdx.x, padded = out.K_padded();
  const float row_factor = source.prepare(t, out.K, shared);
  const auto value = [&](int64_t k) {
    if (k >= out.K) return 0.0f;
    return source.at(t, out.columns != nullptr ? out.columns[k] : k, out.K, row_factor);
  };
  if (out.type == ActType::fp8_block) return write_fp8_blocks(out, t, value, shared);
  const bool is_static = out.type == ActType::fp8_static || out.type == ActType::int8_static;
  const float largest = is_fp8(out.type) ? kMaxE4M3 : 127.0f;
  float factor = 0;
  if (is_static || out.type == ActType::fp8_token || out.type == ActType::int8_token) {
    float max_abs = 0;
    for (int64_t k = threadIdx.x; k < out.K; k += kRowThreads)
      max_abs = fmaxf(max_abs, seen_magnitude(value(k)));
    max_abs = block_reduce(max_abs, shared, [](float v) { return warp_max(v); });
    factor = !is_static ? code_factor(max_abs, largest) : isfinite(max_abs) ? 1.0f : 0.0f;
    if (threadIdx.x == 0) {
      out.scales[t] =
          is_static && isfinite(max_abs) ? out.static_scale : code_scale(max_abs, largest);
    }
  }
  for (int64_t k = threadIdx.x; k < padded; k += kRowThreads) {  // whole warps: padded % 32 == 0
    const float x = is_static ? static_code(value(k), out.static_scale, largest) : value(k);
    switch (out.type) {
      case ActType::f32:
        if (k < out.K) out.f32[t * out.K + k] = x;
        break;
      case ActType::bf16:
        out.half[t * padded + k] = __bfloat16_as_ushort(__float2bfloat16_rn(x));
        break;
      case ActType::f16:
        out.half[t * padded + k] = __half_as_ushort(__float2half_rn(x));
        break;
      case ActType::int8_block:
        write_block(x, out, t, k);
        break;
      case ActType::int8_token:
      case ActType::int8_static:
        out.codes[t * padded + k] = static_cast<int8_t>(int8_code(x, factor));
        break;
      case ActType::fp8_token:
      case ActType::fp8_static:
        out.codes[t * padded + k] = factor > 0.0f ? fp8_code(x * factor) : int8_t{0};
        break;
      default:
        break;  // no row here asks for it
    }
  }
}

template <typename Source>
void write_rows(const Context& context, const Source& source, const Activations& out) {
  if (out.T == 0) return;
  row_kernel<<<static_cast<unsigned>(out.T), kRowThreads, 0, cuda_stream(context)>>>(source, out);
  CUDA_CHECK(cudaGetLastError());
}

void quantize(const Context& context, const float* x, int64_t ldx, const Activations& out) {
  write_rows(context, Values{x, ldx}, out);
}

void rms_norm(const Context& context, const float* x, int64_t T, int64_t C, const float* weight,
              float eps, const Activations& out) {
  CUDA_DOOR(out.T == T && out.K == C, out.T, T, out.K, C);
  write_rows(context, Normed{x, weight, eps}, out);
}

void act_mul(const Context& context, const float* gate_up, int64_t T, int64_t F,
             const Activations& out) {
  CUDA_DOOR(out.T == T && out.K == F, out.T, T, out.K, F);
  write_rows(context, Gated{gate_up}, out);
}

__global__ void cos_sin_kernel(const int32_t* positions, const float* inv_freq, int half,
                               float* out) {
  const int64_t t = blockIdx.x;
  for (int d = threadIdx.x; d < half; d += blockDim.x) {
    const float angle = static_cast<float>(positions[t]) * inv_freq[d];
    out[t * 2 * half + d] = cosf(angle);
    out[t * 2 * half + half + d] = sinf(angle);
  }
}

void cos_sin(const Context& context, int64_t T, int64_t D, const float* inv_freq, float* out) {
  cos_sin_kernel<<<static_cast<unsigned>(T), 64, 0, cuda_stream(context)>>>(
      step_view(context).positions, inv_freq, static_cast<int>(D / 2), out);
  CUDA_CHECK(cudaGetLastError());
}

__global__ void select_kernel(const float* x, const int32_t* rows, int64_t C, float* out) {
  for (int64_t c = threadIdx.x; c < C; c += blockDim.x)
    out[blockIdx.x * C + c] = x[rows[blockIdx.x] * C + c];
}

void select_rows(const Context& context, const float* x, int64_t C, int64_t n, float* out) {
  if (n == 0) return;
  select_kernel<<<static_cast<unsigned>(n), 256, 0, cuda_stream(context)>>>(
      x, step_view(context).logit_rows, C, out);
  CUDA_CHECK(cudaGetLastError());
}

struct Largest {
  float logit;
  int id;
  bool has_nan;
  __device__ void take(const Largest& other) {
    has_nan |= other.has_nan;
    if (other.logit < logit || (other.logit == logit && other.id > id)) return;
    logit = other.logit, id = other.id;
  }
};

static_assert(kRowThreads <= kGeneration.threads &&
              kRowThreads * sizeof(Largest) <= kGeneration.shared_bytes);

// A block has one row.
__global__ void __launch_bounds__(kRowThreads)
    argmax_kernel(const float* logits, int V, int32_t* tokens) {
  __shared__ Largest shared[kRowThreads];
  const float* row = logits + static_cast<int64_t>(blockIdx.x) * V;
  Largest best{-INFINITY, V, false};
  for (int v = threadIdx.x; v < V; v += kRowThreads) {
    const bool is_nan = isnan(row[v]);
    best.take({is_nan ? -INFINITY : row[v], v, is_nan});
  }
  for (int half = kRowThreads / 2; half > 0; half /= 2) {
    shared[threadIdx.x] = best;
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) best.take(shared[threadIdx.x + half]);
    __syncthreads();
  }
  if (threadIdx.x == 0) tokens[blockIdx.x] = best.has_nan || !isfinite(best.logit) ? -1 : best.id;
}

void argmax(const Context& context, const float* logits, int64_t n, int64_t V, int32_t* tokens) {
  if (n == 0) return;
  argmax_kernel<<<static_cast<unsigned>(n), kRowThreads, 0, cuda_stream(context)>>>(
      logits, static_cast<int>(V), tokens);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace
}  // namespace tandem
