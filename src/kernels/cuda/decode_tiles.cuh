// One warp's arithmetic of decode attention: queries as mma fragments, what is known of a query
// while its pages go by, and what a tile of 16 tokens of a page adds to it.
//
// With a bf16 cache, queries and probabilities enter as two terms, the rounded number and what the
// rounding left: the result is as good as f32 over the same cache. With a narrow one they are f16.
// Scales of K multiply the scores. Scales of V join the exponent: a probability times its scale is
// 2^(score + log2 scale - maximum), at most 2^kSlack, so that nothing leaves the range of f16.
// Integer codes enter with an excess (kv_page.cuh), which the sums over Q and P take off again.
#pragma once

#include <cmath>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/kv_page.cuh"

namespace tandem {

constexpr float kSlack = 8;  // powers of two that a score may exceed the running maximum by

// The queries of a kv head as B fragments: column r is query head r, beyond them the last again.
template <KvType type, int D, int kTiles>
struct Queries {
  static constexpr int kTerms = type == KvType::bf16 ? 2 : 1;
  uint32_t pairs[kTerms][kTiles][D / 8];
  // Of columns 2 q and 2 q + 1, over the channels; int4: the sum, int8 and int4: what the codes'
  // excess makes of the scores.
  float sums[kTiles][2], excess[kTiles][2];

  // heads [share][D]
  __device__ __forceinline__ void load(const float* heads, int share, int lane) {
    const int r = lane / 4, q = lane % 4;
    const float scale = 1.44269504f / sqrtf(static_cast<float>(D));
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const float* head = heads + min(8 * n + r, share - 1) * D + q * 16;
      float even = 0, odd = 0;
#pragma unroll
      for (int i = 0; i < D / 8; i += 2) {
        const float4 x = *reinterpret_cast<const float4*>(head + i / 8 * 64 + i % 8 * 2);
        even += set(n, i, x.x * scale, x.y * scale);
        odd += set(n, i + 1, x.z * scale, x.w * scale);
      }
      if constexpr (type == KvType::int4) of_columns(even + odd, q, sums[n]);
      if constexpr (Excess<type>::kAny) {
        of_columns(even * Excess<type>::kEven + odd * Excess<type>::kOdd, q, excess[n]);
      }
    }
  }

 private:
  __device__ __forceinline__ float set(int n, int i, float x, float y) {
    pairs[0][n][i] = rounded_pair<type>(x, y);
    const float2 rounded = widened_pair<type>(pairs[0][n][i]);
    if constexpr (kTerms == 2) pairs[1][n][i] = rounded_pair<type>(x - rounded.x, y - rounded.y);
    return rounded.x + rounded.y;
  }
  // Sums x over the lanes of a query head; to: those of columns 2 q and 2 q + 1.
  static __device__ __forceinline__ void of_columns(float x, int q, float (&to)[2]) {
    x += __shfl_xor_sync(~0u, x, 1);
    x += __shfl_xor_sync(~0u, x, 2);
    to[0] = __shfl_sync(~0u, x, 8 * q), to[1] = __shfl_sync(~0u, x, 8 * q + 4);
  }
};

// What a warp knows of its columns 2 q and 2 q + 1.
template <int D, int kTiles>
struct Running {
  float max[kTiles][2], sum[kTiles][2];
  float bias[kTiles][2];         // int4: the part of the output that is the same in all channels
  float weight[kTiles][4];       // with an excess: the sum of P's rounded numbers, in 0 and 1
  float out[kTiles][D / 16][4];  // C fragments, rows are channels

  __device__ __forceinline__ void reset() {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) max[n][e] = -INFINITY, sum[n][e] = bias[n][e] = 0;
#pragma unroll
      for (int w = 0; w < 4; ++w) weight[n][w] = 0;
#pragma unroll
      for (int c = 0; c < D / 16; ++c) {
#pragma unroll
        for (int w = 0; w < 4; ++w) out[n][c][w] = 0;
      }
    }
  }

  // Raises the maxima to those of the scores, whose columns are 2 q and 2 q + 1 as well.
  template <int kPages>
  __device__ __forceinline__ void raise(const float (&scores)[kPages][kTiles][4]) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float peak = -INFINITY;
#pragma unroll
        for (int u = 0; u < kPages; ++u)
          peak = fmaxf(peak, fmaxf(scores[u][n][e], scores[u][n][2 + e]));
#pragma unroll
        for (int apart = 4; apart < 32; apart *= 2)
          peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, apart));
        peak = fmaxf(peak, max[n][e]);
        const float shrink = power2(max[n][e] - (peak == -INFINITY ? 0.0f : peak));
        max[n][e] = peak;
        sum[n][e] *= shrink, bias[n][e] *= shrink, weight[n][e] *= shrink;
#pragma unroll
        for (int c = 0; c < D / 16; ++c) out[n][c][e] *= shrink, out[n][c][2 + e] *= shrink;
      }
    }
  }
};

// Rows and columns of an 8 x 8 matrix of pairs change places.
__device__ __forceinline__ uint32_t transposed(uint32_t pair) {
  uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
  return result;
}

// The scores of one tile of 16 tokens: C fragments, rows are tokens.
template <KvType type, int D, int kTiles>
__device__ __forceinline__ void score(const Queries<type, D, kTiles>& queries, const uint8_t* keys,
                                      int lane, float (&scores)[kTiles][4]) {
  constexpr int kTerms = Queries<type, D, kTiles>::kTerms;
  float chains[2][kTiles][4] = {};  // two, so that an mma need not wait for the one before
#pragma unroll
  for (int block = 0; block < D / 64; ++block) {
    uint32_t k[2][8];
    Fragments<type, true>::keys(keys, block, lane, k);
#pragma unroll
    for (int s = 0; s < 4; ++s) {
#pragma unroll
      for (int t = 0; t < kTerms; ++t) {
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
          const uint32_t* b = queries.pairs[t][n] + block * 8 + 2 * s;
          Fragments<type>::Mma::run(chains[(s + t) % 2][n], k[0][2 * s], k[1][2 * s],
                                    k[0][2 * s + 1], k[1][2 * s + 1], b[0], b[1]);
        }
      }
    }
  }
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int w = 0; w < 4; ++w) scores[n][w] = chains[0][n][w] + chains[1][n][w];
  }
}

// Tokens [first, last] of a context are seen.
struct Seen {
  int first, last;
};

// Tile `warp` of each of kPages pages in shared memory.
template <KvType type, int D, int kTiles, int kPages>
struct Tiles {
  using Bytes = HeadBytes<type, D>;
  using Q = Queries<type, D, kTiles>;
  static constexpr int kPage = static_cast<int>(kPageTokens);

  const uint8_t* pages[kPages];
  int start;  // position of the first page's first token in the tile
  int warp, lane;
  float scores[kPages][kTiles][4];
  float inverse[kPages][2], min[kPages][2];  // 1 / scale of V, its minimum, of tokens r and r + 8
  uint32_t p[kPages][Q::kTerms][kTiles][2];  // probabilities as B fragments, rows are tokens

  __device__ __forceinline__ int end() const { return start + (kPages - 1) * kPage + 15; }

  // Scores, in powers of two, with what the scales of K and V make of them.
  __device__ __forceinline__ void score_all(const Q& queries) {
#pragma unroll
    for (int u = 0; u < kPages; ++u) {
      score<type, D>(queries, pages[u] + warp * Bytes::kTile, lane, scores[u]);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        inverse[u][h] = 1, min[u][h] = 0;
        if constexpr (type != KvType::bf16) scale_scores(queries, u, h);
      }
    }
  }

  // Takes what the query does not see out of all sums.
  __device__ __forceinline__ void mask(Seen seen) {
    if (start >= seen.first && end() <= seen.last) return;
#pragma unroll
    for (int u = 0; u < kPages; ++u) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int position = start + u * kPage + lane / 4 + 8 * h;
        if (position >= seen.first && position <= seen.last) continue;
        inverse[u][h] = min[u][h] = 0;
#pragma unroll
        for (int n = 0; n < kTiles; ++n) scores[u][n][2 * h] = scores[u][n][2 * h + 1] = -INFINITY;
      }
    }
  }

  // Scores to probabilities, unnormalized; raises the maxima when a score exceeds one by kSlack.
  __device__ __forceinline__ void weigh(Running<D, kTiles>& state) {
    bool grows = false;
#pragma unroll
    for (int u = 0; u < kPages; ++u) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int w = 0; w < 4; ++w) grows |= !(scores[u][n][w] <= state.max[n][w % 2] + kSlack);
      }
    }
    if (__any_sync(~0u, grows)) state.raise(scores);
#pragma unroll
    for (int u = 0; u < kPages; ++u) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int h = 0; h < 2; ++h) weigh_pair(state, u, n, h);
      }
    }
  }

  __device__ __forceinline__ void add_values(Seen seen, Running<D, kTiles>& state) const {
#pragma unroll
    for (int u = 0; u < kPages; ++u) {
      if constexpr (Excess<type>::kAny) {
        constexpr uint32_t kOnes = 0x3C003C00;
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
          MmaF16::run(state.weight[n], kOnes, kOnes, kOnes, kOnes, p[u][0][n][0], p[u][0][n][1]);
        }
      }
#pragma unroll
      for (int block = 0; block < D / 64; ++block) {
        uint32_t v[4][4];
        const uint8_t* tile = pages[u] + Bytes::kPlane + warp * Bytes::kTile;
        Fragments<type, true>::values(tile, block, lane, v);
        if constexpr (!Excess<type>::kAny) {  // codes of integers are never NaN
          if (end() > seen.last) clear_beyond(v, seen.last + 1 - start - u * kPage, lane % 4);
        }
#pragma unroll
        for (int t = 0; t < Q::kTerms; ++t) {
#pragma unroll
          for (int n = 0; n < kTiles; ++n) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
              Fragments<type>::Mma::run(state.out[n][4 * block + c], v[c][0], v[c][1], v[c][2],
                                        v[c][3], p[u][t][n][0], p[u][t][n][1]);
            }
          }
        }
      }
    }
  }

 private:
  __device__ __forceinline__ TokenWord<type> token_word(int u, int words, int h) const {
    const int at = words + 4 * (16 * warp + lane / 4 + 8 * h);
    return {*reinterpret_cast<const uint32_t*>(pages[u] + at)};
  }

  __device__ __forceinline__ void scale_scores(const Q& queries, int u, int h) {
    const TokenWord<type> k = token_word(u, Bytes::kKeyWords, h);
    const TokenWord<type> v = token_word(u, Bytes::kValueWords, h);
    const float log2_scale = __log2f(v.safe_scale());
    inverse[u][h] = __fdividef(1.0f, v.safe_scale());
    min[u][h] = v.min();
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& x = scores[u][n][2 * h + e];
        if constexpr (Excess<type>::kAny) x -= queries.excess[n][e];
        x = x * k.scale() + log2_scale;
        if constexpr (type == KvType::int4) x += k.min() * queries.sums[n][e];
      }
    }
  }

  __device__ __forceinline__ void weigh_pair(Running<D, kTiles>& state, int u, int n, int h) {
    float x[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float base = state.max[n][e] == -INFINITY ? 0.0f : state.max[n][e];
      x[e] = power2(scores[u][n][2 * h + e] - base);
      const float probability = type == KvType::bf16 ? x[e] : x[e] * inverse[u][h];
      state.sum[n][e] += probability;
      if constexpr (type == KvType::int4) state.bias[n][e] += probability * min[u][h];
    }
    const uint32_t pair = rounded_pair<type>(x[0], x[1]);
    p[u][0][n][h] = transposed(pair);
    if constexpr (Q::kTerms == 2) {
      const float2 rounded = widened_pair<type>(pair);
      p[u][1][n][h] = transposed(rounded_pair<type>(x[0] - rounded.x, x[1] - rounded.y));
    }
  }
};

// Sums over the warp's lanes, and what the warp knows into its rows of shared memory [share][D +
// kRowPadding].
template <KvType type, int D, int kTiles>
__device__ __forceinline__ void leave(Running<D, kTiles>& state, int share, int lane, float* rows) {
  const int r = lane / 4, q = lane % 4;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float sum = state.sum[n][e], bias = state.bias[n][e];
#pragma unroll
      for (int apart = 4; apart < 32; apart *= 2) {
        sum += __shfl_xor_sync(~0u, sum, apart);
        if constexpr (type == KvType::int4) bias += __shfl_xor_sync(~0u, bias, apart);
      }
      const int head = 8 * n + 2 * q + e;
      if (head >= share) continue;
      float* row = rows + head * (D + kRowPadding);
      float lower = type == KvType::int4 ? bias : 0.0f, upper = lower;
      if constexpr (Excess<type>::kAny) {
        lower -= Excess<type>::kEven * state.weight[n][e];
        upper -= Excess<type>::kOdd * state.weight[n][e];
      }
#pragma unroll
      for (int c = 0; c < D / 16; ++c) {
        row[16 * c + r] = state.out[n][c][e] + lower;
        row[16 * c + r + 8] = state.out[n][c][2 + e] + upper;
      }
      if (r == 0) row[D] = state.max[n][e], row[D + 1] = sum;
    }
  }
}

}  // namespace tandem
