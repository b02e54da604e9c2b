// RoPE with the append to the paged cache, and causal attention over it; bf16 cache, head sizes 64
// and 128.
//
// A page's plane of K is [64 tokens][D], of V its transpose [D][64 tokens], at the offsets of
// KvLayout: so both are read in 16-byte pieces that are fragments of mma as they lie.
//
// One block of 4 warps has one AttentionItem and one kv head: up to 16 rows (query tokens x query
// heads that share the kv head), so K and V are read once for all of them. A warp takes every
// fourth 32 tokens: S = Q K^T, a running softmax, O += P V. Queries and probabilities enter the
// bf16 mma as two terms, the rounded number and what the rounding left, so that the result is as
// good as f32 over the same cache. The warps meet in shared memory; the items of a long context
// meet in memory, where the last one to arrive adds them up in their order. Bound by bytes: the
// pages, once.
#include <cmath>

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/warp.cuh"

namespace tandem {
namespace {

constexpr int kWarps = 4;
constexpr int kItemRows = 16;
constexpr int kGroupTokens = 32;  // scored together by a warp

// The cache of one layer.
struct Pages {
  std::byte* base;  // of the layer in page 0
  int64_t page_bytes, head_bytes, k_bytes;
  __device__ __nv_bfloat16* k(int32_t page, int g) const {
    return reinterpret_cast<__nv_bfloat16*>(base + page * page_bytes + g * head_bytes);
  }
  __device__ __nv_bfloat16* v(int32_t page, int g) const {
    return reinterpret_cast<__nv_bfloat16*>(base + page * page_bytes + g * head_bytes + k_bytes);
  }
};

Pages pages_of(const KvCache& cache, int64_t layer) {
  const KvLayout& layout = cache.layout;
  CUDA_DOOR(layout.type == KvType::bf16, static_cast<int64_t>(layout.type));
  return {cache.base + layout.k_offset(layer, 0), layout.page_bytes(), layout.head_bytes(),
          layout.k_bytes()};
}

// One warp a head; lane d has the planes d, d + 32 ... (each the pair d, d + D / 2).
template <int D>
__global__ void rope_append_kernel(float* qkv, const HeadTransform transform, const StepView step,
                                   int H, int G, const float* cos_sin, const Pages cache) {
  constexpr int kPlanes = D / 2 / 32;
  launch_dependents();
  wait_for_inputs();
  const int lane = threadIdx.x % 32, h = blockIdx.y * kWarps + threadIdx.x / 32;
  if (h >= H + 2 * G) return;
  const int64_t t = blockIdx.x;
  float* head = qkv + (t * (H + 2 * G) + h) * D;
  float a[kPlanes], b[kPlanes];
#pragma unroll
  for (int i = 0; i < kPlanes; ++i) {
    const int d = lane + 32 * i;
    a[i] = head[d], b[i] = head[d + D / 2];
    if (transform.bias != nullptr)
      a[i] += transform.bias[h * D + d], b[i] += transform.bias[h * D + d + D / 2];
  }
  const bool is_v = h >= H + G;
  if (transform.q_norm != nullptr && !is_v) {
    const float* weight = h < H ? transform.q_norm : transform.k_norm;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kPlanes; ++i) sum += a[i] * a[i] + b[i] * b[i];
    const float scale = 1.0f / sqrtf(warp_sum(sum) / D + transform.eps);
#pragma unroll
    for (int i = 0; i < kPlanes; ++i) {
      const int d = lane + 32 * i;
      a[i] = a[i] * scale * weight[d], b[i] = b[i] * scale * weight[d + D / 2];
    }
  }
  const int position = step.positions[t], token = position % kPageTokens;
  const int32_t page = step.pages[step.page_tables[t] + position / kPageTokens];
#pragma unroll
  for (int i = 0; i < kPlanes; ++i) {
    const int d = lane + 32 * i;
    if (is_v) {
      __nv_bfloat16* v = cache.v(page, h - H - G);
      v[d * kPageTokens + token] = __float2bfloat16_rn(a[i]);
      v[(d + D / 2) * kPageTokens + token] = __float2bfloat16_rn(b[i]);
      continue;
    }
    const float c = cos_sin[t * D + d], s = cos_sin[t * D + D / 2 + d];
    const float x = a[i] * c - b[i] * s, y = b[i] * c + a[i] * s;
    if (h < H) {
      head[d] = x, head[d + D / 2] = y;
    } else {
      __nv_bfloat16* k = cache.k(page, h - H) + token * D;
      k[d] = __float2bfloat16_rn(x), k[d + D / 2] = __float2bfloat16_rn(y);
    }
  }
}

// Two numbers as bf16, and what their rounding left as bf16.
__device__ __forceinline__ void split(float x, float y, uint32_t& high, uint32_t& low) {
  const __nv_bfloat162 rounded = __floats2bfloat162_rn(x, y);
  high = *reinterpret_cast<const uint32_t*>(&rounded);
  const __nv_bfloat162 rest =
      __floats2bfloat162_rn(x - __low2float(rounded), y - __high2float(rounded));
  low = *reinterpret_cast<const uint32_t*>(&rest);
}

// What a warp knows of its rows r and r + 8: running maxima (of scores in powers of two), sums,
// outputs.
template <int D>
struct Running {
  float max[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};  // of this lane's columns
  float out[D / 8][4] = {};
};

// Q as A fragments: [32 channels][row r, r + 8][4 words], each in two terms.
template <int D>
struct Queries {
  uint32_t high[D / 32][2][4], low[D / 32][2][4];

  __device__ __forceinline__ void load(const float* const (&rows)[2], int q, float scale) {
#pragma unroll
    for (int i = 0; i < D / 32; ++i) {
#pragma unroll
      for (int row = 0; row < 2; ++row) {
#pragma unroll
        for (int w = 0; w < 4; ++w) {
          const float* p = rows[row] + i * 32 + q * 8 + w * 2;
          split(p[0] * scale, p[1] * scale, high[i][row][w], low[i][row][w]);
        }
      }
    }
  }
};

// 32 tokens of a page, from `first` in the page on, which is position `start`. Row i sees the
// positions from[i] ... to[i]; `last` is the last position that any row sees.
template <int D>
__device__ __forceinline__ void attend(const Queries<D>& queries, const __nv_bfloat16* k,
                                       const __nv_bfloat16* v, int first, int start,
                                       const int (&from)[2], const int (&to)[2], int last,
                                       Running<D>& state) {
  const int lane = threadIdx.x % 32, r = lane / 4, q = lane % 4;
  // Column c of score tile j is token 8 (c / 2) + 2 j + c % 2, so that this lane's probabilities
  // are those of the tokens 8 q ... 8 q + 7, as the 16 bytes of V have them.
  float scores[4][4] = {};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const __nv_bfloat16* key = k + (first + 8 * (r / 2) + 2 * j + r % 2) * D + q * 8;
#pragma unroll
    for (int i = 0; i < D / 32; ++i) {
      const uint4 b = *reinterpret_cast<const uint4*>(key + i * 32);
      const auto& high = queries.high[i];
      const auto& low = queries.low[i];
      MmaBf16::run(scores[j], high[0][0], high[1][0], high[0][1], high[1][1], b.x, b.y);
      MmaBf16::run(scores[j], high[0][2], high[1][2], high[0][3], high[1][3], b.z, b.w);
      MmaBf16::run(scores[j], low[0][0], low[1][0], low[0][1], low[1][1], b.x, b.y);
      MmaBf16::run(scores[j], low[0][2], low[1][2], low[0][3], low[1][3], b.z, b.w);
    }
  }
  float peak[2] = {state.max[0], state.max[1]};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int position = start + 8 * q + 2 * j + c % 2, row = c / 2;
      if (position < from[row] || position > to[row]) scores[j][c] = -INFINITY;
      peak[row] = fmaxf(peak[row], scores[j][c]);
    }
  }
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    peak[row] = fmaxf(peak[row], __shfl_xor_sync(~0u, peak[row], 1));
    peak[row] = fmaxf(peak[row], __shfl_xor_sync(~0u, peak[row], 2));
    const float base = peak[row] == -INFINITY ? 0.0f : peak[row];
    const float shrink = exp2f(state.max[row] - base);
    state.max[row] = peak[row];
    state.sum[row] *= shrink;
#pragma unroll
    for (int n = 0; n < D / 8; ++n)
      state.out[n][2 * row] *= shrink, state.out[n][2 * row + 1] *= shrink;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int c = 2 * row; c < 2 * row + 2; ++c) {
        scores[j][c] = exp2f(scores[j][c] - base);
        state.sum[row] += scores[j][c];
      }
    }
  }
  uint32_t high[4][2], low[4][2];  // [tile][row]
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    split(scores[j][0], scores[j][1], high[j][0], low[j][0]);
    split(scores[j][2], scores[j][3], high[j][1], low[j][1]);
  }
#pragma unroll
  for (int n = 0; n < D / 8; ++n) {
    uint4 b = *reinterpret_cast<const uint4*>(v + (8 * n + r) * kPageTokens + first + 8 * q);
    if (start + kGroupTokens - 1 > last) {
      // What lies beyond the sequence is anything, and zero times anything may be NaN.
      const auto keep = [&](uint32_t pair, int i) {
        const int position = start + 8 * q + 2 * i;
        return position + 1 <= last ? pair : position <= last ? pair & 0xFFFF : 0u;
      };
      b = {keep(b.x, 0), keep(b.y, 1), keep(b.z, 2), keep(b.w, 3)};
    }
    MmaBf16::run(state.out[n], high[0][0], high[0][1], high[1][0], high[1][1], b.x, b.y);
    MmaBf16::run(state.out[n], high[2][0], high[2][1], high[3][0], high[3][1], b.z, b.w);
    MmaBf16::run(state.out[n], low[0][0], low[0][1], low[1][0], low[1][1], b.x, b.y);
    MmaBf16::run(state.out[n], low[2][0], low[2][1], low[3][0], low[3][1], b.z, b.w);
  }
}

// Rows of unnormalized output with their maximum and sum, [D + 2] floats each: one row of all
// parts, added. part(i) is the i-th part's row.
template <int D, typename Part>
__device__ __forceinline__ float merged(int d, int parts, Part part, float* max_out,
                                        float* sum_out) {
  float peak = -INFINITY, sum = 0, value = 0;
#pragma unroll 8
  for (int i = 0; i < parts; ++i) peak = fmaxf(peak, part(i)[D]);
  const float base = peak == -INFINITY ? 0.0f : peak;
#pragma unroll 8
  for (int i = 0; i < parts; ++i) {
    const float* row = part(i);
    const float weight = exp2f(row[D] - base);
    sum += weight * row[D + 1];
    value += weight * row[d];
  }
  *max_out = peak;
  *sum_out = sum;
  return value;
}

template <int D>
__global__ void __launch_bounds__(kWarps * 32)
    attention_kernel(const float* qkv, const StepView step, int H, int G, int window,
                     const Pages cache, float* out) {
  extern __shared__ float shared[];  // [warps][16 rows][D + 2]
  __shared__ bool is_last;
  launch_dependents();
  wait_for_inputs();
  const AttentionItem item = step.items[blockIdx.x];
  if (item.num_tokens == 0) return;
  const int g = blockIdx.y, share = H / G, num_rows = item.num_tokens * share;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, q = lane % 4;
  const int64_t ld = static_cast<int64_t>(H + 2 * G) * D;

  Queries<D> queries;
  Running<D> state;
  int from[2], to[2];
  {
    const float* rows[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = min(r + 8 * i, num_rows - 1), token = row / share;
      rows[i] = qkv + (item.first_token + token) * ld + (g * share + row % share) * D;
      to[i] = item.position + token;
      from[i] = window == 0 ? 0 : max(0, to[i] + 1 - window);
    }
    queries.load(rows, q, 1.44269504f / sqrtf(static_cast<float>(D)));
  }
  const int last = item.position + item.num_tokens - 1;
  const int32_t* pages = step.pages + item.pages;
  constexpr int kGroups = static_cast<int>(kPageTokens) / kGroupTokens;  // of a page
  for (int group = item.page_begin * kGroups + warp; group < item.page_end * kGroups;
       group += kWarps) {
    const int start = group * kGroupTokens;
    if (start > last) break;
    const int32_t page = pages[group / kGroups];
    attend<D>(queries, cache.k(page, g), cache.v(page, g), group % kGroups * kGroupTokens, start,
              from, to, last, state);
  }

#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float sum = state.sum[i];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    float* row = shared + (warp * kItemRows + r + 8 * i) * (D + 2);
#pragma unroll
    for (int n = 0; n < D / 8; ++n)
      row[8 * n + 2 * q] = state.out[n][2 * i], row[8 * n + 2 * q + 1] = state.out[n][2 * i + 1];
    if (q == 0) row[D] = state.max[i], row[D + 1] = sum;
  }
  __syncthreads();
  const auto output = [&](int row) {
    return out +
           (static_cast<int64_t>(item.first_token + row / share) * H + g * share + row % share) * D;
  };
  const auto partial = [&](int slot, int row) {
    return step.partials + (static_cast<int64_t>(slot) * H + g * share + row) * (D + 2);
  };
  for (int i = threadIdx.x; i < num_rows * D; i += blockDim.x) {
    const int row = i / D, d = i % D;
    float peak, sum;
    const float value = merged<D>(
        d, kWarps, [&](int w) { return shared + (w * kItemRows + row) * (D + 2); }, &peak, &sum);
    if (item.slot < 0) {
      output(row)[d] = value / sum;
    } else {
      float* to_row = partial(item.slot, row);
      to_row[d] = value;
      if (d == 0) to_row[D] = peak, to_row[D + 1] = sum;
    }
  }
  if (item.slot < 0) return;

  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const auto count = static_cast<unsigned>(item.num_items - 1);
    is_last = atomicInc(step.counters + item.slot_begin * G + g, count) ==
              count;  // back to zero after the last
  }
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  for (int i = threadIdx.x; i < num_rows * D; i += blockDim.x) {
    const int row = i / D, d = i % D;
    float peak, sum;
    const float value = merged<D>(
        d, item.num_items, [&](int part) { return partial(item.slot_begin + part, row); }, &peak,
        &sum);
    output(row)[d] = value / sum;
  }
}

}  // namespace

void cuda_rope_append(const Context& context, float* qkv, const HeadTransform& transform,
                      const Batch& batch, int64_t H, const float* cos_sin, const KvCache& cache,
                      int64_t layer) {
  const int64_t G = cache.layout.G, D = cache.layout.D;
  CUDA_DOOR(D == 64 || D == 128, D);
  launch(context, D == 64 ? rope_append_kernel<64> : rope_append_kernel<128>,
         dim3(static_cast<unsigned>(batch.T), blocks_for(H + 2 * G, kWarps)), dim3(kWarps * 32), 0,
         qkv, transform, step_view(context), static_cast<int>(H), static_cast<int>(G), cos_sin,
         pages_of(cache, layer));
}

void cuda_attention(const Context& context, const float* qkv, const Batch&, int64_t H,
                    const KvCache& cache, int64_t layer, float*, float* out) {
  const int64_t G = cache.layout.G, D = cache.layout.D;
  CUDA_DOOR((D == 64 || D == 128) && H / G <= kItemRows, D, H, G);
  const StepView& step = step_view(context);
  launch(context, D == 64 ? attention_kernel<64> : attention_kernel<128>,
         dim3(static_cast<unsigned>(step.num_items), static_cast<unsigned>(G)), dim3(kWarps * 32),
         static_cast<size_t>(kWarps * kItemRows * (D + 2)) * sizeof(float), qkv, step,
         static_cast<int>(H), static_cast<int>(G), static_cast<int>(cache.layout.window),
         pages_of(cache, layer), out);
}

}  // namespace tandem
