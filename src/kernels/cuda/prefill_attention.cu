// Causal attention of a prompt's tokens over the paged cache.
//
// A block has one tile: up to 128 query rows (tokens x query heads of one kv head), 32 for each of
// four warps, and sweeps the tile's pages once through two or more stages of shared memory. A warp
// takes 32 tokens of a page at a time: S = Q K^T, a running softmax with exact maxima, O += P V,
// all in registers; Q waits in shared memory as the fragments that its warp needs. A row's sums run
// over the pages in order and do not depend on the rows beside it. Bound by the tensor cores.
//
// Queries and probabilities are rounded to the type that meets the cache's, bf16 or (narrow caches)
// f16; scales as in decode_attention.cu.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/kv_page.cuh"
#include "kernels/cuda/ring.cuh"

namespace tandem {
namespace {

constexpr int kWarps = 4;
constexpr int kRowTiles = 2;  // of 16 rows, a warp's
static_assert(kWarps * kRowTiles * 16 == kPromptTileRows);
constexpr int kHalfTokens = 32;  // scored together

template <KvType type, int D>
constexpr int kStages = std::min(4, std::max(2, 65536 / HeadBytes<type, D>::kAll));
template <int D>
constexpr int kQueryBytes = kPromptTileRows* D * 2;

// The rows r, r + 8, r + 16 and r + 24 of a warp: which keys they see, and what is known of them.
template <int D>
struct Rows {
  int first[4], last[4];  // positions seen
  float max[4], sum[4];   // sum: of this lane's columns
  float bias[4];          // int4: the part of the output that is the same in all channels
  float query_sum[4];     // int4
  float out[kRowTiles][D / 8][4];
};

// Writes the warp's Q to shared memory: for each k16 step and row tile the A fragment, 16 bytes a
// lane. A lane reads what it wrote itself.
template <KvType type, int D>
__device__ __forceinline__ void load_queries(const float* const (&rows)[4], int lane, uint8_t* to,
                                             Rows<D>& state) {
  const int q = lane % 4;
  const float scale = 1.44269504f / sqrtf(static_cast<float>(D));
#pragma unroll
  for (int i = 0; i < 4; ++i) state.query_sum[i] = 0;
#pragma unroll
  for (int step = 0; step < D / 16; ++step) {
    const int channel = step / 4 * 64 + 16 * q + step % 4 * 4;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      uint32_t a[4];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float4 x = *reinterpret_cast<const float4*>(rows[2 * m + h] + channel);
        a[h] = rounded_pair<type>(x.x * scale, x.y * scale);
        a[2 + h] = rounded_pair<type>(x.z * scale, x.w * scale);
        if constexpr (type == KvType::int4) {
          const float2 low = widened_pair<type>(a[h]), high = widened_pair<type>(a[2 + h]);
          state.query_sum[2 * m + h] += low.x + low.y + high.x + high.y;
        }
      }
      *reinterpret_cast<uint4*>(to + ((step * kRowTiles + m) * 32 + lane) * 16) = {a[0], a[1], a[2],
                                                                                   a[3]};
    }
  }
  if constexpr (type == KvType::int4) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      state.query_sum[i] += __shfl_xor_sync(~0u, state.query_sum[i], 1);
      state.query_sum[i] += __shfl_xor_sync(~0u, state.query_sum[i], 2);
    }
  }
}

// Scores of 32 tokens as C fragments: [row tile][8 tokens][4].
using Scores = float[kRowTiles][kHalfTokens / 8][4];

template <KvType type, int D>
__device__ __forceinline__ void score(const uint8_t* queries, const uint8_t* keys, int lane,
                                      Scores& scores) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int j = 0; j < kHalfTokens / 8; ++j) {
#pragma unroll
      for (int w = 0; w < 4; ++w) scores[m][j][w] = 0;
    }
  }
#pragma unroll
  for (int block = 0; block < D / 64; ++block) {
    uint4 a[4][kRowTiles];
#pragma unroll
    for (int s = 0; s < 4; ++s) {
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
        a[s][m] = load16(queries + (((block * 4 + s) * kRowTiles + m) * 32 + lane) * 16);
    }
#pragma unroll
    for (int tile = 0; tile < kHalfTokens / 16; ++tile) {
      uint32_t k[2][8];
      Fragments<type>::keys(keys + tile * HeadBytes<type, D>::kTile, block, lane, k);
#pragma unroll
      for (int s = 0; s < 4; ++s) {
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            Fragments<type>::Mma::run(scores[m][2 * tile + h], a[s][m].x, a[s][m].y, a[s][m].z,
                                      a[s][m].w, k[h][2 * s], k[h][2 * s + 1]);
          }
        }
      }
    }
  }
}

// Tokens `first_token` ... + 31 of a page in shared memory, the first of them at position `start`.
// Unless all rows see all of them, `is_masked`; `last` is the last position that any row of the
// block sees.
template <KvType type, int D>
__device__ __forceinline__ void attend(const uint8_t* queries, const uint8_t* page, int first_token,
                                       int start, bool is_masked, int last, int lane,
                                       Rows<D>& state) {
  using Bytes = HeadBytes<type, D>;
  const int q = lane % 4;
  Scores scores;
  const uint8_t* keys = page + first_token / 16 * Bytes::kTile;
  score<type, D>(queries, keys, lane, scores);

  constexpr int kGroups = kHalfTokens / 8;
  float inverse[kGroups][2], min[kGroups][2];  // of V, of tokens 8 j + 2 q and the next
  if constexpr (type != KvType::bf16) {
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      const int at = 4 * (first_token + 8 * j + 2 * q);
      const uint2 k_words = *reinterpret_cast<const uint2*>(page + Bytes::kKeyWords + at);
      const uint2 v_words = *reinterpret_cast<const uint2*>(page + Bytes::kValueWords + at);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const TokenWord<type> k{e == 0 ? k_words.x : k_words.y}, v{e == 0 ? v_words.x : v_words.y};
        const float log2_scale = __log2f(v.safe_scale());
        inverse[j][e] = __fdividef(1.0f, v.safe_scale());
        min[j][e] = v.min();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& x = scores[i / 2][j][i % 2 * 2 + e];
          x = x * k.scale() + log2_scale;
          if constexpr (type == KvType::int4) x += k.min() * state.query_sum[i];
        }
      }
    }
  }
  if (is_masked) {
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int position = start + 8 * j + 2 * q + e;
        if (position > last) inverse[j][e] = min[j][e] = 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (position < state.first[i] || position > state.last[i])
            scores[i / 2][j][i % 2 * 2 + e] = -INFINITY;
        }
      }
    }
  }

  float peak[4];
  bool grows = false;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    peak[i] = state.max[i];
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      const float* x = scores[i / 2][j] + i % 2 * 2;
      peak[i] = fmaxf(peak[i], fmaxf(x[0], x[1]));
    }
    peak[i] = fmaxf(peak[i], __shfl_xor_sync(~0u, peak[i], 1));
    peak[i] = fmaxf(peak[i], __shfl_xor_sync(~0u, peak[i], 2));
    grows |= peak[i] > state.max[i];
  }
  if (__any_sync(~0u, grows)) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float shrink = power2(state.max[i] - (peak[i] == -INFINITY ? 0.0f : peak[i]));
      state.max[i] = peak[i];
      state.sum[i] *= shrink, state.bias[i] *= shrink;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        state.out[i / 2][n][i % 2 * 2] *= shrink;
        state.out[i / 2][n][i % 2 * 2 + 1] *= shrink;
      }
    }
  }

  uint32_t p[kHalfTokens / 16][kRowTiles][4];  // A fragments
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float base = state.max[i] == -INFINITY ? 0.0f : state.max[i];
#pragma unroll
    for (int j = 0; j < kGroups; ++j) {
      float* x = scores[i / 2][j] + i % 2 * 2;
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        x[e] = power2(x[e] - base);
        const float probability = type == KvType::bf16 ? x[e] : x[e] * inverse[j][e];
        state.sum[i] += probability;
        if constexpr (type == KvType::int4) state.bias[i] += probability * min[j][e];
      }
      p[j / 2][i / 2][j % 2 * 2 + i % 2] = rounded_pair<type>(x[0], x[1]);
    }
  }
#pragma unroll
  for (int tile = 0; tile < kHalfTokens / 16; ++tile) {
#pragma unroll
    for (int block = 0; block < D / 64; ++block) {
      uint32_t v[4][4];
      Fragments<type>::values(keys + Bytes::kPlane + tile * Bytes::kTile, block, lane, v);
      if (is_masked) clear_beyond(v, last + 1 - start - 16 * tile, q);
#pragma unroll
      for (int c = 0; c < 4; ++c) {
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          float(*out)[4] = state.out[m] + 8 * block + 2 * c;
          const uint32_t* a = p[tile][m];
          Fragments<type>::Mma::run(out[0], a[0], a[1], a[2], a[3], v[c][0], v[c][2]);
          Fragments<type>::Mma::run(out[1], a[0], a[1], a[2], a[3], v[c][1], v[c][3]);
        }
      }
    }
  }
}

template <KvType type, int D>
__global__ void __launch_bounds__(kWarps * 32, 2)
    prefill_kernel(const float* qkv, const StepView step, int H, int G, int window,
                   const Pages cache, float* out) {
  extern __shared__ __align__(128) uint8_t shared_bytes[];
  __shared__ Ring<kStages<type, D>> ring;
  constexpr int kBytes = HeadBytes<type, D>::kAll;
  constexpr int kPage = static_cast<int>(kPageTokens);
  launch_dependents();
  const AttentionItem item = step.tiles[blockIdx.y];
  const int g = blockIdx.x, share = H / G, num_rows = item.num_tokens * share;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, r = lane / 4, q = lane % 4;
  const int32_t* pages = step.pages + item.pages;
  ring.init(kWarps);
  wait_for_inputs();

  const auto copy = [&](int page) {
    const int stage = (page - item.page_begin) % kStages<type, D>;
    expect_bytes(&ring.full[stage], kBytes);
    bulk_copy(shared_bytes + stage * kBytes, cache.head(pages[page], g), kBytes, &ring.full[stage]);
  };
  if (threadIdx.x == 0) {
    const int end = min(item.page_begin + kStages<type, D>, item.page_end);
    for (int page = item.page_begin; page < end; ++page) copy(page);
  }

  Rows<D> state;
  const auto token_of = [&](int i) { return min(warp * 32 + r + 8 * i, num_rows - 1) / share; };
  const auto head_of = [&](int i) {
    return g * share + min(warp * 32 + r + 8 * i, num_rows - 1) % share;
  };
  {
    const float* rows[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = token_of(i);
      const int64_t ld = static_cast<int64_t>(H + 2 * G) * D;
      rows[i] = qkv + (item.first_token + token) * ld + head_of(i) * D;
      state.last[i] = item.position + token;
      state.first[i] = window == 0 ? 0 : max(0, state.last[i] + 1 - window);
      state.max[i] = -INFINITY, state.sum[i] = state.bias[i] = 0;
    }
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
#pragma unroll
        for (int w = 0; w < 4; ++w) state.out[m][n][w] = 0;
      }
    }
    uint8_t* queries = shared_bytes + kStages<type, D> * kBytes + warp * (kQueryBytes<D> / kWarps);
    load_queries<type, D>(rows, lane, queries, state);
  }
  // What the warp's rows see, all of them and any of them.
  const int first_row = min(warp * 32, num_rows - 1), last_row = min(warp * 32 + 31, num_rows - 1);
  const int low = item.position + first_row / share, high = item.position + last_row / share;
  const bool is_idle = warp * 32 >= num_rows;
  const int last = item.position + item.num_tokens - 1;
  const uint8_t* queries =
      shared_bytes + kStages<type, D> * kBytes + warp * (kQueryBytes<D> / kWarps);
  for (int page = item.page_begin; page < item.page_end; ++page) {
    const int index = page - item.page_begin, stage = index % kStages<type, D>;
    wait_barrier(&ring.full[stage], index / kStages<type, D> % 2);
    if (!is_idle) {
#pragma unroll 1
      for (int token = 0; token < kPage; token += kHalfTokens) {
        const int start = page * kPage + token, end = start + kHalfTokens - 1;
        if (start > high || (window != 0 && end + window <= low)) continue;
        const bool is_masked = end > low || (window != 0 && start + window <= high);
        attend<type, D>(queries, shared_bytes + stage * kBytes, token, start, is_masked, last, lane,
                        state);
      }
    }
    __syncthreads();  // the stage has been read
    if (threadIdx.x == 0 && page + kStages<type, D> < item.page_end) copy(page + kStages<type, D>);
  }

#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float sum = state.sum[i], bias = state.bias[i];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    if constexpr (type == KvType::int4) {
      bias += __shfl_xor_sync(~0u, bias, 1);
      bias += __shfl_xor_sync(~0u, bias, 2);
    }
    if (warp * 32 + r + 8 * i >= num_rows) continue;
    const float factor = 1.0f / sum;
    float* row =
        out + (static_cast<int64_t>(item.first_token + token_of(i)) * H + head_of(i)) * D + 2 * q;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      const float* x = state.out[i / 2][n] + i % 2 * 2;
      *reinterpret_cast<float2*>(row + 8 * n) = {(x[0] + bias) * factor, (x[1] + bias) * factor};
    }
  }
}

template <KvType type, int D>
void run(const Context& context, const float* qkv, int64_t H, const KvCache& cache, int64_t layer,
         float* out) {
  constexpr size_t kBytes = kStages<type, D> * HeadBytes<type, D>::kAll + kQueryBytes<D>;
  const auto kernel = prefill_kernel<type, D>;
  static const bool is_ready = [&] {
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    return true;
  }();
  CUDA_DOOR(is_ready, 0);
  const StepView& step = step_view(context);
  const int64_t G = cache.layout.G;
  launch(context, kernel, dim3(static_cast<unsigned>(G), static_cast<unsigned>(step.num_tiles)),
         dim3(kWarps * 32), kBytes, qkv, step, static_cast<int>(H), static_cast<int>(G),
         static_cast<int>(cache.layout.window), Pages(cache, layer), out);
}

template <KvType type>
void run_type(const Context& context, const float* qkv, int64_t H, const KvCache& cache,
              int64_t layer, float* out) {
  (cache.layout.D == 128 ? run<type, 128> : run<type, 64>)(context, qkv, H, cache, layer, out);
}

}  // namespace

void cuda_prefill_attention(const Context& context, const float* qkv, int64_t H,
                            const KvCache& cache, int64_t layer, float* out) {
  switch (cache.layout.type) {
    case KvType::bf16:
      return run_type<KvType::bf16>(context, qkv, H, cache, layer, out);
    case KvType::fp8:
      return run_type<KvType::fp8>(context, qkv, H, cache, layer, out);
    case KvType::int8:
      return run_type<KvType::int8>(context, qkv, H, cache, layer, out);
    case KvType::int4:
      return run_type<KvType::int4>(context, qkv, H, cache, layer, out);
    case KvType::f32:
      break;
  }
  CUDA_DOOR(false, static_cast<int64_t>(cache.layout.type));
}

}  // namespace tandem
