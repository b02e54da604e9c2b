// The ops between the linears: RMS norm, SiLU x up and plain quantization, each writing what the
// next linear wants; and the step's ends: angles, selected rows, the largest logit.
//
// Each token has some blocks of threads, which are a cluster where its row has a norm or one scale.
// A row is read twice then, once to be reduced and once to be written. Quantization is that of
// kernels/ref/ops.cpp, to the bit. Bound by the latency of a launch.
#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/rows.h"

namespace tandem {
namespace {

constexpr int64_t kThreads = 256;           // of a block that reduces nothing
constexpr int64_t kReducingThreads = 1024;  // one block has a row of up to 4096 channels
constexpr int kEach = 4;                    // neighbouring channels of a thread
constexpr unsigned kMaxCluster = 8;

// Four channels from k on, zero beyond K.
__device__ __forceinline__ float4 load4(const float* row, int64_t k, int64_t K, bool is_aligned) {
  if (is_aligned && k + kEach <= K) return *reinterpret_cast<const float4*>(row + k);
  return {k < K ? row[k] : 0.0f, k + 1 < K ? row[k + 1] : 0.0f, k + 2 < K ? row[k + 2] : 0.0f,
          k + 3 < K ? row[k + 3] : 0.0f};
}

// The channels of a token that this thread has: `step` apart, the cluster's blocks side by side.
struct Mine {
  __device__ Mine(int64_t padded_, unsigned blocks, unsigned block)
      : first((block * blockDim.x + threadIdx.x) * kEach),
        step(blocks * blockDim.x * kEach),
        padded(padded_) {}
  int64_t first, step, padded;
};

// Where a row's numbers come from. prepare() runs in every thread of the cluster.
struct Plain {
  const float* x;
  int64_t ldx;
  bool is_aligned;
  static constexpr bool kReduces = false;
  __device__ void prepare(int64_t, int64_t, const Mine&, float*) {}
  __device__ float4 at(int64_t t, int64_t k, int64_t K) const {
    return load4(x + t * ldx, k, K, is_aligned);
  }
};

struct Normed {
  const float* x;  // [T, C]
  const float* weight;
  float eps;
  bool is_aligned;
  float scale;
  static constexpr bool kReduces = true;
  __device__ void prepare(int64_t t, int64_t C, const Mine& mine, float* shared) {
    float sum = 0;
    for (int64_t k = mine.first; k < C; k += mine.step) {
      const float4 v = load4(x + t * C, k, C, is_aligned);
      sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    sum = cluster_reduce(
        sum, shared, [](float v) { return warp_sum(v); }, 0.0f);
    scale = 1.0f / sqrtf(sum / static_cast<float>(C) + eps);
  }
  __device__ float4 at(int64_t t, int64_t k, int64_t C) const {
    const float4 v = load4(x + t * C, k, C, is_aligned), w = load4(weight, k, C, is_aligned);
    return {v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w};
  }
};

struct Gated {
  const float* gate_up;  // [T, 2F]
  bool is_aligned;
  static constexpr bool kReduces = false;
  static __device__ float silu(float gate) { return gate / (1.0f + expf(-gate)); }
  __device__ void prepare(int64_t, int64_t, const Mine&, float*) {}
  __device__ float4 at(int64_t t, int64_t k, int64_t F) const {
    const float4 g = load4(gate_up + t * 2 * F, k, F, is_aligned),
                 u = load4(gate_up + t * 2 * F + F, k, F, is_aligned);
    return {silu(g.x) * u.x, silu(g.y) * u.y, silu(g.z) * u.z, silu(g.w) * u.w};
  }
};

__device__ __forceinline__ float code_factor(float max_abs) {
  return max_abs > kSmallestMaxAbs && isfinite(max_abs) ? 127.0f / max_abs : 0.0f;
}

// |x|, infinite when x is not a number, so that a maximum shows it.
__device__ __forceinline__ float seen_magnitude(float x) {
  return isfinite(x) ? fabsf(x) : INFINITY;
}
__device__ __forceinline__ float seen_magnitude(const float4& v) {
  return fmaxf(fmaxf(seen_magnitude(v.x), seen_magnitude(v.y)),
               fmaxf(seen_magnitude(v.z), seen_magnitude(v.w)));
}

// Four codes as they lie, and their sum.
__device__ __forceinline__ uint32_t codes_of(const float4& v, float factor, int* sum) {
  if (!(factor > 0.0f)) {
    *sum = 0;
    return 0;
  }
  const int a = __float2int_rn(v.x * factor), b = __float2int_rn(v.y * factor),
            c = __float2int_rn(v.z * factor), d = __float2int_rn(v.w * factor);
  *sum = a + b + c + d;
  return (a & 255) | (b & 255) << 8 | (c & 255) << 16 | static_cast<uint32_t>(d) << 24;
}

// Blocks of 32 channels, eight neighbouring threads each.
template <typename Source>
__device__ void write_blocks(const Source& source, const Activations& out, int64_t t,
                             const Mine& mine) {
  for (int64_t k = mine.first; k < mine.padded; k += mine.step) {
    const float4 v = source.at(t, k, out.K);
    const unsigned together = 0xFFu << (threadIdx.x % 32 / 8 * 8);
    float max_abs = seen_magnitude(v);
    for (int d = 4; d > 0; d /= 2) max_abs = fmaxf(max_abs, __shfl_xor_sync(together, max_abs, d));
    int sum;
    const uint32_t codes = codes_of(v, code_factor(max_abs), &sum);
    for (int d = 4; d > 0; d /= 2) sum += __shfl_xor_sync(together, sum, d);
    *reinterpret_cast<uint32_t*>(out.codes + t * mine.padded + k) = codes;
    if (threadIdx.x % 8 == 0) {
      const float scale = isfinite(max_abs) ? max_abs / 127.0f : NAN;
      out.scales[k / kActBlock * out.T + t] = scale;
      out.sums[k / kActBlock * out.T + t] = scale * static_cast<float>(sum);
    }
  }
}

template <typename Source>
__device__ void write_token_codes(const Source& source, const Activations& out, int64_t t,
                                  const Mine& mine, float* shared) {
  float max_abs = 0;
  for (int64_t k = mine.first; k < out.K; k += mine.step)
    max_abs = fmaxf(max_abs, seen_magnitude(source.at(t, k, out.K)));
  max_abs = cluster_reduce(
      max_abs, shared, [](float v) { return warp_max(v); }, 0.0f);
  const float factor = code_factor(max_abs);
  for (int64_t k = mine.first; k < mine.padded; k += mine.step) {
    int sum;
    *reinterpret_cast<uint32_t*>(out.codes + t * mine.padded + k) =
        codes_of(source.at(t, k, out.K), factor, &sum);
  }
  // The sum of a whole token's codes is for weights with a minimum, of which none has one scale a
  // row here.
  if (mine.first == 0) out.scales[t] = isfinite(max_abs) ? max_abs / 127.0f : NAN;
}

template <ActType kType>
__device__ __forceinline__ uint32_t half_pair(float a, float b) {
  if constexpr (kType == ActType::bf16) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
  const __half2 pair = __floats2half2_rn(a, b);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Grid: x the blocks of a token, which are a cluster where a row must be reduced; y the tokens.
template <typename Source, ActType kType>
__global__ void __launch_bounds__(kReducingThreads)
    row_kernel(Source source, const Activations out) {
  __shared__ float shared[33];
  launch_dependents();
  wait_for_inputs();
  const int64_t t = blockIdx.y;
  const Mine mine(kType == ActType::f32 ? out.K : out.K_padded(), gridDim.x, blockIdx.x);
  source.prepare(t, out.K, mine, shared);
  if constexpr (kType == ActType::int8_block) {
    write_blocks(source, out, t, mine);
  } else if constexpr (kType == ActType::int8_token) {
    write_token_codes(source, out, t, mine, shared);
  } else {
    for (int64_t k = mine.first; k < mine.padded; k += mine.step) {
      const float4 v = source.at(t, k, out.K);
      if constexpr (kType == ActType::f32) {
        const float values[] = {v.x, v.y, v.z, v.w};
        for (int64_t i = 0; i < kEach && k + i < out.K; ++i) out.f32[t * out.K + k + i] = values[i];
      } else {
        *reinterpret_cast<uint2*>(out.half + t * mine.padded + k) = {half_pair<kType>(v.x, v.y),
                                                                     half_pair<kType>(v.z, v.w)};
      }
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
  const bool reduces = Source::kReduces || out.type == ActType::int8_token;
  const int64_t most = reduces ? kReducingThreads : kThreads;
  const int64_t threads = std::min(most, (out.K_padded() / kEach + 31) / 32 * 32);
  unsigned blocks = blocks_for(out.K_padded(), threads * kEach);
  if (reduces) blocks = std::min(std::bit_ceil(blocks), kMaxCluster);
  launch_clusters(context, kernel, reduces ? blocks : 1, dim3(blocks, static_cast<unsigned>(out.T)),
                  dim3(static_cast<unsigned>(threads)), 0, source, out);
}

__global__ void cos_sin_kernel(const int32_t* positions, const float* inv_freq, int half,
                               float* cos_sin) {
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
  for (int c = threadIdx.x; c < C; c += blockDim.x)
    out[static_cast<int64_t>(blockIdx.x) * C + c] = x[row * C + c];
}

// A logit and its id as one number that orders by logit, then by lower id; NaN above all.
__device__ __forceinline__ unsigned long long rank_of(float logit, int id) {
  const uint32_t bits = __float_as_uint(logit);
  const uint32_t ordered = isnan(logit) ? ~0u : bits >> 31 ? ~bits : bits | 0x80000000u;
  return static_cast<unsigned long long>(ordered) << 32 | (0xFFFFFFFFu - static_cast<uint32_t>(id));
}

__device__ __forceinline__ unsigned long long warp_largest(unsigned long long v) {
  for (int d = 16; d > 0; d /= 2) v = max(v, __shfl_xor_sync(~0u, v, d));
  return v;
}

// A cluster has one row.
__global__ void __launch_bounds__(1024) argmax_kernel(const float* logits, int V, int32_t* tokens) {
  __shared__ unsigned long long shared[33];
  launch_dependents();
  wait_for_inputs();
  const float* row = logits + static_cast<int64_t>(blockIdx.y) * V;
  unsigned long long best = 0;
  const int step = static_cast<int>(gridDim.x * blockDim.x) * kEach;
  for (int v = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) * kEach; v < V; v += step) {
    const float4 x = load4(row, v, V, V % kEach == 0);
    best = max(best, rank_of(x.x, v));
    if (v + 1 < V) best = max(best, rank_of(x.y, v + 1));
    if (v + 2 < V) best = max(best, rank_of(x.z, v + 2));
    if (v + 3 < V) best = max(best, rank_of(x.w, v + 3));
  }
  best = cluster_reduce(
      best, shared, [](unsigned long long v) { return warp_largest(v); }, 0ull);
  if (blockIdx.x != 0 || threadIdx.x != 0) return;
  const int32_t id = static_cast<int32_t>(0xFFFFFFFFu - static_cast<uint32_t>(best));
  tokens[blockIdx.y] = isfinite(row[id]) ? id : -1;
}

void cos_sin(const Context& context, int64_t T, int64_t D, const float* inv_freq, float* out) {
  launch(context, cos_sin_kernel, dim3(static_cast<unsigned>(T)), dim3(64), 0,
         step_view(context).positions, inv_freq, static_cast<int>(D / 2), out);
}

void select_rows(const Context& context, const float* x, int64_t C, int64_t n, float* out) {
  launch(context, select_kernel, dim3(static_cast<unsigned>(n)), dim3(256), 0, x,
         step_view(context).logit_rows, static_cast<int>(C), out);
}

void argmax(const Context& context, const float* logits, int64_t n, int64_t V, int32_t* tokens) {
  launch_clusters(context, argmax_kernel, kMaxCluster, dim3(kMaxCluster, static_cast<unsigned>(n)),
                  dim3(1024), 0, logits, static_cast<int>(V), tokens);
}

}  // namespace

void cuda_quantize(const Context& context, const float* x, int64_t ldx, const Activations& out) {
  write_rows(context, Plain{x, ldx, ldx % kEach == 0}, out);
}

void cuda_rms_norm(const Context& context, const float* x, int64_t T, int64_t C,
                   const float* weight, float eps, const Activations& out) {
  CUDA_DOOR(out.T == T && out.K == C, out.T, T, out.K, C);
  write_rows(context, Normed{x, weight, eps, C % kEach == 0, 0.0f}, out);
}

void cuda_act_mul(const Context& context, const float* gate_up, int64_t T, int64_t F,
                  const Activations& out) {
  CUDA_DOOR(out.T == T && out.K == F, out.T, T, out.K, F);
  write_rows(context, Gated{gate_up, F % kEach == 0}, out);
}

const DeviceOps& cuda_device_ops() {
  static const DeviceOps ops{cos_sin, select_rows, argmax};
  return ops;
}

}  // namespace tandem
