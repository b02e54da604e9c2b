// The ops between the linears: RMS norm, SiLU x up and plain quantization, each writing what the
// next linear wants; and the step's ends: angles, selected rows, the largest logit.
//
// Where a token's row must be reduced, to a norm or to one scale, one block has it, or for gates a
// cluster, and keeps it in registers: the row is read once. Quantization is that of
// kernels/ref/ops.cpp, to the bit. Bound by the latency of a launch.
#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/outlier_codes.cuh"
#include "kernels/cuda/row_codes.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/rows.h"

namespace tandem {
namespace {

constexpr int64_t kThreads = 256;          // of a block that reduces nothing
constexpr int64_t kReducingThreads = 512;  // of one that does: it finds room beside a linear's
constexpr int kMostChunks = 16;            // of a thread
constexpr unsigned kMaxCluster = 8;

// Four channels from k on, zero beyond K.
__device__ __forceinline__ float4 load4(const float* row, int64_t k, int64_t K, bool is_aligned) {
  if (is_aligned && k + kEach <= K) return *reinterpret_cast<const float4*>(row + k);
  return {k < K ? row[k] : 0.0f, k + 1 < K ? row[k + 1] : 0.0f, k + 2 < K ? row[k + 2] : 0.0f,
          k + 3 < K ? row[k + 3] : 0.0f};
}

// The same of a row as it lies, and of one whose channel k is columns[k], K a multiple of kEach.
struct InOrder {
  bool is_aligned;
  __device__ __forceinline__ float4 operator()(const float* row, int64_t k, int64_t K) const {
    return load4(row, k, K, is_aligned);
  }
};
struct Ordered {
  const int32_t* columns;
  __device__ __forceinline__ float4 operator()(const float* row, int64_t k, int64_t K) const {
    if (k >= K) return {};
    const int4 c = *reinterpret_cast<const int4*>(columns + k);
    return {row[c.x], row[c.y], row[c.z], row[c.w]};
  }
};
// Weights whose columns have another order are integers in groups.
constexpr bool may_be_ordered(ActType type) {
  return type == ActType::f16 || type == ActType::int8_block;
}

// Of all threads of the block, which is whole warps; `shared` is 32 numbers that nothing else uses.
// 0 is neutral. Every thread gets the result.
template <typename Warp>
__device__ __forceinline__ float block_reduce(float v, float* shared, Warp warp_reduce) {
  v = warp_reduce(v);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
  __syncthreads();
  return warp_reduce(threadIdx.x % 32 < blockDim.x / 32 ? shared[threadIdx.x % 32] : 0.0f);
}

// Tells the cluster that this block's shared memory is there.
__device__ __forceinline__ void cluster_begin() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;");
}

// The largest of all blocks of the cluster, each of which has its own, after cluster_begin().
// `is_first`: of the kernel's calls, each with a `shared` of its own.
__device__ __forceinline__ float cluster_max(float v, float* shared, bool is_first = true) {
  namespace cg = cooperative_groups;
  const auto cluster = cg::this_cluster();
  if (is_first)
    asm volatile("barrier.cluster.wait.aligned;" ::: "memory");  // every block has begun
  const unsigned blocks = cluster.num_blocks();
  if (threadIdx.x < blocks)
    *cluster.map_shared_rank(shared + cluster.block_rank(), threadIdx.x) = v;
  cluster.sync();
  for (unsigned i = 0; i < blocks; ++i) v = fmaxf(v, shared[i]);
  return v;
}

// Where a row's numbers come from. A chunk is what at() gives, or where kNorms the same times the
// row's scale and the weights, which are the model's and may be read before the inputs are there.
struct Values {
  const float* x;
  int64_t ldx;
  bool is_aligned;
  static constexpr bool kNorms = false;
  template <typename Load>
  __device__ float4 at(int64_t t, int64_t k, int64_t K, Load load) const {
    return load(x + t * ldx, k, K);
  }
};

struct Normed {
  const float* x;  // [T, C]
  const float* weight;
  float eps;
  bool is_aligned;
  static constexpr bool kNorms = true;
  template <typename Load>
  __device__ float4 at(int64_t t, int64_t k, int64_t C, Load load) const {
    return load(x + t * C, k, C);
  }
};

struct Gated {
  const float* gate_up;  // [T, 2F]
  bool is_aligned;
  static constexpr bool kNorms = false;
  static __device__ float silu(float gate) { return __fdividef(gate, 1.0f + expf(-gate)); }
  template <typename Load>
  __device__ float4 at(int64_t t, int64_t k, int64_t F, Load load) const {
    const float4 g = load(gate_up + t * 2 * F, k, F), u = load(gate_up + t * 2 * F + F, k, F);
    return {silu(g.x) * u.x, silu(g.y) * u.y, silu(g.z) * u.z, silu(g.w) * u.w};
  }
};

// Grid: x the blocks of a token, one where a row must be reduced, or a cluster; y the tokens. A
// thread has kChunks chunks, as far apart as all threads of the token reach.
template <typename Source, ActType kType, int kChunks>
__global__ void __launch_bounds__(kReducingThreads, kChunks <= 8 ? 2 : 1)
    row_kernel(const Source source, const Activations out) {
  __shared__ float shared[5][32];
  constexpr bool kClusters = !Source::kNorms && is_reduced(kType);
  launch_dependents();
  if (kClusters && gridDim.x > 1) cluster_begin();
  const int64_t t = blockIdx.y, padded = out.K_padded();
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kEach;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * kEach;
  // Calls use(load), by which rows are read.
  const auto in_order = [&](auto use) {
    if constexpr (may_be_ordered(kType)) {
      if (out.columns != nullptr) return use(Ordered{out.columns});
    }
    use(InOrder{source.is_aligned});
  };
  float4 weights[Source::kNorms ? kChunks : 1];
  if constexpr (Source::kNorms) {
    in_order([&](auto load) {
#pragma unroll
      for (int i = 0; i < kChunks; ++i) weights[i] = load(source.weight, first + i * step, out.K);
    });
  }
  wait_for_inputs();
  float4 v[kChunks];
  in_order([&](auto load) {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) v[i] = source.at(t, first + i * step, out.K, load);
  });
  if constexpr (Source::kNorms) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kChunks; ++i)
      sum += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
    sum = block_reduce(sum, shared[0], [](float x) { return warp_sum(x); });
    const float scale = 1.0f / sqrtf(sum / static_cast<float>(out.K) + source.eps);
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const float4 w = weights[i];
      v[i] = {v[i].x * scale * w.x, v[i].y * scale * w.y, v[i].z * scale * w.z,
              v[i].w * scale * w.w};
    }
  }
  float factor = 0;
  if constexpr (has_one_scale(kType)) {
    constexpr float kLargest = kType == ActType::fp8_token ? kMaxE4M3 : 127.0f;
    float max_abs = 0;
#pragma unroll
    for (int i = 0; i < kChunks; ++i) max_abs = fmaxf(max_abs, seen_magnitude(v[i]));
    max_abs = block_reduce(max_abs, shared[1], [](float x) { return warp_max(x); });
    if (kClusters && gridDim.x > 1) max_abs = cluster_max(max_abs, shared[2]);
    const bool is_static = out.type != kType, is_finite = isfinite(max_abs);
    factor = !is_static ? code_factor(max_abs, kLargest) : is_finite ? 1.0f : 0.0f;
    if (blockIdx.x == 0 && threadIdx.x == 0)
      out.scales[t] = !is_finite ? NAN : is_static ? out.static_scale : max_abs / kLargest;
    if (is_static) {
#pragma unroll
      for (int i = 0; i < kChunks; ++i) {
        v[i] = {static_code(v[i].x, out.static_scale, kLargest),
                static_code(v[i].y, out.static_scale, kLargest),
                static_code(v[i].z, out.static_scale, kLargest),
                static_code(v[i].w, out.static_scale, kLargest)};
      }
    }
  }
  OutlierFactors factors;
  if constexpr (kType == ActType::int8_outlier) {
    const auto warp_reduce = [](float x) { return warp_max(x); };
    float2 largest{};
#pragma unroll
    for (int i = 0; i < kChunks; ++i) largest = larger_apart(largest, v[i]);
    largest = {block_reduce(largest.x, shared[1], warp_reduce),
               block_reduce(largest.y, shared[3], warp_reduce)};
    if (kClusters && gridDim.x > 1) {
      largest.x = cluster_max(largest.x, shared[2]);
      largest.y = cluster_max(largest.y, shared[4], false);
    }
    factors = outlier_factors(out, t, largest, blockIdx.x == 0 && threadIdx.x == 0);
  }
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int64_t k = first + i * step;
    if constexpr (kType == ActType::fp8_block) {
      write_fp8_block(v[i], out, t, k);
      continue;
    }
    if (k >= padded) continue;
    if constexpr (kType == ActType::int8_outlier) {
      write_outliers(v[i], out, t, k, factors);
    } else {
      write_chunk<kType>(v[i], out, t, k, factor);
    }
  }
}

template <typename Source, ActType kType, int kChunks>
void launch_rows(const Context& context, const Source& source, const Activations& out,
                 unsigned blocks, int64_t threads) {
  const bool clusters = !Source::kNorms && is_reduced(kType);
  launch_clusters(context, row_kernel<Source, kType, kChunks>, clusters ? blocks : 1,
                  dim3(blocks, static_cast<unsigned>(out.T)), dim3(static_cast<unsigned>(threads)),
                  0, source, out);
}

template <typename Source, ActType kType>
void write_rows(const Context& context, const Source& source, const Activations& out) {
  const int64_t chunks = out.K_padded() / kEach, threads = (chunks + 31) / 32 * 32;
  if constexpr (!Source::kNorms && !is_reduced(kType)) {
    const int64_t some = std::min(kThreads, threads);
    return launch_rows<Source, kType, 1>(context, source, out, blocks_for(chunks, some), some);
  } else {
    const unsigned blocks =
        Source::kNorms
            ? 1
            : std::min(std::bit_ceil(blocks_for(chunks, 2 * kReducingThreads)), kMaxCluster);
    const int64_t share = (threads + blocks * 32 - 1) / (blocks * 32) * 32;
    const int64_t some = std::min(kReducingThreads, share);
    const int64_t each = (chunks + some * blocks - 1) / (some * blocks);
    CUDA_DOOR(each <= kMostChunks, out.K);
    if (each <= 1) return launch_rows<Source, kType, 1>(context, source, out, blocks, some);
    if (each <= 2) return launch_rows<Source, kType, 2>(context, source, out, blocks, some);
    if (each <= 4) return launch_rows<Source, kType, 4>(context, source, out, blocks, some);
    if (each <= 8) return launch_rows<Source, kType, 8>(context, source, out, blocks, some);
    launch_rows<Source, kType, kMostChunks>(context, source, out, blocks, some);
  }
}

template <typename Source>
void write_rows(const Context& context, const Source& source, const Activations& out) {
  if (out.T == 0) return;
  CUDA_DOOR(out.columns == nullptr || may_be_ordered(out.type), static_cast<int>(out.type));
  switch (out.type) {
    case ActType::int8_block:
      return write_rows<Source, ActType::int8_block>(context, source, out);
    case ActType::int8_token:
    case ActType::int8_static:
      return write_rows<Source, ActType::int8_token>(context, source, out);
    case ActType::fp8_token:
    case ActType::fp8_static:
      return write_rows<Source, ActType::fp8_token>(context, source, out);
    case ActType::fp8_block:
      return write_rows<Source, ActType::fp8_block>(context, source, out);
    case ActType::int8_outlier:
      return write_rows<Source, ActType::int8_outlier>(context, source, out);
    case ActType::bf16:
      return write_rows<Source, ActType::bf16>(context, source, out);
    case ActType::f16:
      return write_rows<Source, ActType::f16>(context, source, out);
    case ActType::f32:
      return write_rows<Source, ActType::f32>(context, source, out);
    default: CUDA_DOOR(false, static_cast<int>(out.type));  // no row of the table asks for it
  }
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
  write_rows(context, Values{x, ldx, ldx % kEach == 0}, out);
}

void cuda_rms_norm(const Context& context, const float* x, int64_t T, int64_t C,
                   const float* weight, float eps, const Activations& out) {
  CUDA_DOOR(out.T == T && out.K == C, out.T, T, out.K, C);
  write_rows(context, Normed{x, weight, eps, C % kEach == 0}, out);
}

void cuda_act_mul(const Context& context, const float* gate_up, int64_t T, int64_t F,
                  const Activations& out) {
  CUDA_DOOR(out.T == T && out.K == F, out.T, T, out.K, F);
  write_rows(context, Gated{gate_up, F % kEach == 0}, out);
}

const DeviceOps& cuda_device_ops() {
  static const DeviceOps ops{cos_sin, select_rows, argmax, cuda_add_bias, cuda_dynamic_cos_sin};
  return ops;
}

}  // namespace tandem
