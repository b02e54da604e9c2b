// The ops between the linears: RMS norm, SiLU x up and plain quantization, each writing what the next linear
// wants; and the step's ends: angles, selected rows, the largest logit.
//
// A block of threads has one token. Every row is read twice: once for its norm or its largest magnitude, once to
// be written; both come from L2. Quantization is that of kernels/ref/ops.cpp, to the bit. Bound by launches.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/rows.h"

namespace tandem {
namespace {

// Where a row's numbers come from. prepare() runs in every thread of the block.
struct Plain {
  const float* x;
  int64_t ldx;
  __device__ void prepare(int64_t, int, float*) {}
  __device__ float at(int64_t t, int k) const { return x[t * ldx + k]; }
};

struct Normed {
  const float* x;  // [T, C]
  const float* weight;
  float eps;
  float scale;
  __device__ void prepare(int64_t t, int C, float* shared) {
    float sum = 0;
    for (int c = threadIdx.x; c < C; c += blockDim.x) sum += x[t * C + c] * x[t * C + c];
    sum = block_reduce(sum, shared, [](float v) { return warp_sum(v); }, 0.0f);
    scale = 1.0f / sqrtf(sum / static_cast<float>(C) + eps);
    ld = C;
  }
  __device__ float at(int64_t t, int k) const { return x[t * ld + k] * scale * weight[k]; }
  int64_t ld;
};

struct Gated {
  const float* gate_up;  // [T, 2F]
  int64_t F;
  __device__ void prepare(int64_t, int, float*) {}
  __device__ float at(int64_t t, int k) const {
    const float gate = gate_up[t * 2 * F + k];
    return gate / (1.0f + expf(-gate)) * gate_up[t * 2 * F + F + k];
  }
};

__device__ __forceinline__ float code_factor(float max_abs) {
  return max_abs > kSmallestMaxAbs && isfinite(max_abs) ? 127.0f / max_abs : 0.0f;
}

// |x|, infinite when x is not a number, so that a maximum shows it.
__device__ __forceinline__ float seen_magnitude(float x) { return isfinite(x) ? fabsf(x) : INFINITY; }

// Blocks of 32 channels, one a warp.
template <typename Source>
__device__ void write_blocks(const Source& source, const Activations& out, int64_t t) {
  const int lane = threadIdx.x % 32, K = static_cast<int>(out.K);
  const int64_t padded = out.K_padded();
  for (int64_t k = threadIdx.x; k < padded; k += blockDim.x) {
    const float value = k < K ? source.at(t, static_cast<int>(k)) : 0.0f;
    const float max_abs = warp_max(seen_magnitude(value));
    const float factor = code_factor(max_abs);
    const int code = factor > 0.0f ? __float2int_rn(value * factor) : 0;
    int sum = code;
    for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
    out.codes[t * padded + k] = static_cast<int8_t>(code);
    if (lane == 0) {
      const float scale = isfinite(max_abs) ? max_abs / 127.0f : NAN;
      out.scales[k / kActBlock * out.T + t] = scale;
      out.sums[k / kActBlock * out.T + t] = scale * static_cast<float>(sum);
    }
  }
}

template <typename Source>
__device__ void write_token_codes(const Source& source, const Activations& out, int64_t t, float* shared) {
  const int K = static_cast<int>(out.K);
  const int64_t padded = out.K_padded();
  float max_abs = 0;
  for (int k = threadIdx.x; k < K; k += blockDim.x) max_abs = fmaxf(max_abs, seen_magnitude(source.at(t, k)));
  max_abs = block_reduce(max_abs, shared, [](float v) { return warp_max(v); }, 0.0f);
  const float factor = code_factor(max_abs);
  float sum = 0;  // of codes: whole numbers, exact up to 2^24
  for (int64_t k = threadIdx.x; k < padded; k += blockDim.x) {
    const int code = factor > 0.0f && k < K ? __float2int_rn(source.at(t, static_cast<int>(k)) * factor) : 0;
    out.codes[t * padded + k] = static_cast<int8_t>(code);
    sum += static_cast<float>(code);
  }
  sum = block_reduce(sum, shared, [](float v) { return warp_sum(v); }, 0.0f);
  if (threadIdx.x == 0) {
    const float scale = isfinite(max_abs) ? max_abs / 127.0f : NAN;
    out.scales[t] = scale;
    out.sums[t] = scale * sum;
  }
}

template <typename Source, ActType kType>
__global__ void __launch_bounds__(1024) row_kernel(Source source, const Activations out) {
  __shared__ float shared[32];
  launch_dependents();
  wait_for_inputs();
  const int64_t t = blockIdx.x;
  source.prepare(t, static_cast<int>(out.K), shared);
  if constexpr (kType == ActType::int8_block) {
    write_blocks(source, out, t);
  } else if constexpr (kType == ActType::int8_token) {
    write_token_codes(source, out, t, shared);
  } else {
    const int64_t padded = kType == ActType::f32 ? out.K : out.K_padded();
    for (int64_t k = threadIdx.x; k < padded; k += blockDim.x) {
      const float value = k < out.K ? source.at(t, static_cast<int>(k)) : 0.0f;
      if constexpr (kType == ActType::f32) out.f32[t * padded + k] = value;
      if constexpr (kType == ActType::bf16) out.half[t * padded + k] = __bfloat16_as_ushort(__float2bfloat16_rn(value));
      if constexpr (kType == ActType::f16) out.half[t * padded + k] = __half_as_ushort(__float2half_rn(value));
    }
  }
}

template <typename Source>
void write_rows(const Context& context, const Source& source, const Activations& out) {
  if (out.T == 0) return;
  const auto kernel = out.type == ActType::int8_block   ? row_kernel<Source, ActType::int8_block>
                      : out.type == ActType::int8_token ? row_kernel<Source, ActType::int8_token>
                      : out.type == ActType::bf16       ? row_kernel<Source, ActType::bf16>
                      : out.type == ActType::f16        ? row_kernel<Source, ActType::f16>
                                                        : row_kernel<Source, ActType::f32>;
  const int64_t warps = std::clamp<int64_t>(out.K_padded() / 64, 1, 32);
  launch(context, kernel, dim3(static_cast<unsigned>(out.T)), dim3(static_cast<unsigned>(warps * 32)), 0, source, out);
}

__global__ void cos_sin_kernel(const int32_t* positions, const float* inv_freq, int half, float* cos_sin) {
  launch_dependents();
  wait_for_inputs();
  const int64_t t = blockIdx.x;
  for (int d = threadIdx.x; d < half; d += blockDim.x) {
    const float angle = static_cast<float>(positions[t]) * inv_freq[d];
    cos_sin[t * 2 * half + d] = cosf(angle);
    cos_sin[t * 2 * half + half + d] = sinf(angle);
  }
}

__global__ void select_kernel(const float* x, const int32_t* rows, int C, float* out) {
  launch_dependents();
  wait_for_inputs();
  const int64_t row = rows[blockIdx.x];
  for (int c = threadIdx.x; c < C; c += blockDim.x) out[static_cast<int64_t>(blockIdx.x) * C + c] = x[row * C + c];
}

// A logit and its id as one number that orders by logit, then by lower id; NaN above all.
__device__ __forceinline__ unsigned long long rank_of(float logit, int id) {
  const uint32_t bits = __float_as_uint(logit);
  const uint32_t ordered = isnan(logit) ? ~0u : bits >> 31 ? ~bits : bits | 0x80000000u;
  return static_cast<unsigned long long>(ordered) << 32 | (0xFFFFFFFFu - static_cast<uint32_t>(id));
}

__global__ void __launch_bounds__(1024) argmax_kernel(const float* logits, int V, int32_t* tokens) {
  __shared__ unsigned long long shared[32];
  launch_dependents();
  wait_for_inputs();
  const float* row = logits + static_cast<int64_t>(blockIdx.x) * V;
  unsigned long long best = 0;
  for (int v = threadIdx.x; v < V; v += blockDim.x) best = max(best, rank_of(row[v], v));
  for (int d = 16; d > 0; d /= 2) best = max(best, __shfl_xor_sync(~0u, best, d));
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  best = shared[threadIdx.x];
  for (int d = 16; d > 0; d /= 2) best = max(best, __shfl_xor_sync(~0u, best, d));
  if (threadIdx.x != 0) return;
  const int32_t id = static_cast<int32_t>(0xFFFFFFFFu - static_cast<uint32_t>(best));
  tokens[blockIdx.x] = isfinite(row[id]) ? id : -1;
}

void cos_sin(const Context& context, int64_t T, int64_t D, const float* inv_freq, float* out) {
  launch(context, cos_sin_kernel, dim3(static_cast<unsigned>(T)), dim3(64), 0, step_view(context).positions, inv_freq,
         static_cast<int>(D / 2), out);
}

void select_rows(const Context& context, const float* x, int64_t C, int64_t n, float* out) {
  launch(context, select_kernel, dim3(static_cast<unsigned>(n)), dim3(256), 0, x, step_view(context).logit_rows,
         static_cast<int>(C), out);
}

void argmax(const Context& context, const float* logits, int64_t n, int64_t V, int32_t* tokens) {
  launch(context, argmax_kernel, dim3(static_cast<unsigned>(n)), dim3(1024), 0, logits, static_cast<int>(V), tokens);
}

}  // namespace

void cuda_quantize(const Context& context, const float* x, int64_t ldx, const Activations& out) {
  write_rows(context, Plain{x, ldx}, out);
}

void cuda_rms_norm(const Context& context, const float* x, int64_t T, int64_t C, const float* weight, float eps,
                   const Activations& out) {
  CUDA_DOOR(out.T == T && out.K == C, out.T, T, out.K, C);
  write_rows(context, Normed{x, weight, eps, 0.0f, 0}, out);
}

void cuda_act_mul(const Context& context, const float* gate_up, int64_t T, int64_t F, const Activations& out) {
  CUDA_DOOR(out.T == T && out.K == F, out.T, T, out.K, F);
  write_rows(context, Gated{gate_up, F}, out);
}

const DeviceOps& cuda_device_ops() {
  static const DeviceOps ops{cos_sin, select_rows, argmax};
  return ops;
}

}  // namespace tandem
