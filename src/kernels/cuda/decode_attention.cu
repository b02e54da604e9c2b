// Attention of single tokens over the paged cache: decoding.
//
// A unit of work is one AttentionItem (a token and a run of its pages) and one kv head. A block
// takes units that lie the grid apart. One warp copies pages into a ring in shared memory, across
// the seams between units, and begins before the kernel's inputs are there: only a page that this
// step appends to has to wait. Four warps have 16 tokens of each page: S = K Q^T with the query
// heads as the columns of the mma, a running softmax, O += V^T P; so K and V are read once for all
// heads of the group and go from the page to the tensor cores as they lie (bf16) or after one to
// two instructions a pair (narrow types, as f16). The warps meet in shared memory; the units of a
// long context meet in memory, where the last one to arrive adds them up in their order. How a
// context is cut depends on nothing but its length. Bound by bytes: the pages, once.
//
// Tried and lost: a warp of its own for queries and sums. What it waits for queues behind the pages
// under way to its multiprocessor, and one warp has too few loads in flight.
//
// With a bf16 cache, queries and probabilities enter as two terms, the rounded number and what the
// rounding left: the result is as good as f32 over the same cache. With a narrow one they are f16.
// Scales of K multiply the scores. Scales of V join the exponent: a probability times its scale is
// 2^(score + log2 scale - maximum), at most 2^kSlack, so that nothing leaves the range of f16.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/kv_page.cuh"
#include "kernels/cuda/ring.cuh"

namespace tandem {
namespace {

constexpr int kWarps = 4;    // that compute; one more copies
constexpr float kSlack = 8;  // powers of two that a score may exceed the running maximum by

// Blocks that a multiprocessor holds at once, and the stages of their rings: what fills its shared
// memory beside the rows of output. Narrow types have more to compute for a byte, so more warps.
template <KvType type, int kTiles>
constexpr int kResident = type == KvType::bf16 || kTiles > 1 ? 2 : 3;
template <KvType type, int D, int kTiles>
constexpr int kStages = std::min(8, (kTiles > 1             ? 65536
                                     : type == KvType::bf16 ? 98304
                                                            : 53248) /
                                        HeadBytes<type, D>::kAll);

// The queries of a kv head as B fragments: column r is query head r, beyond them the last again.
template <KvType type, int D, int kTiles>
struct Queries {
  static constexpr int kTerms = type == KvType::bf16 ? 2 : 1;
  uint32_t pairs[kTerms][kTiles][D / 8];
  float sums[kTiles][2];  // int4: over the channels, of columns 2 q and 2 q + 1

  // heads [share][D]
  __device__ __forceinline__ void load(const float* heads, int share, int lane) {
    const int r = lane / 4, q = lane % 4;
    const float scale = 1.44269504f / sqrtf(static_cast<float>(D));
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const float* head = heads + min(8 * n + r, share - 1) * D + q * 16;
      float sum = 0;
#pragma unroll
      for (int i = 0; i < D / 8; i += 2) {
        const float4 x = *reinterpret_cast<const float4*>(head + i / 8 * 64 + i % 8 * 2);
        sum += set(n, i, x.x * scale, x.y * scale) + set(n, i + 1, x.z * scale, x.w * scale);
      }
      if constexpr (type == KvType::int4) {
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        sums[n][0] = __shfl_sync(~0u, sum, 8 * q), sums[n][1] = __shfl_sync(~0u, sum, 8 * q + 4);
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
};

// What a warp knows of its columns 2 q and 2 q + 1.
template <int D, int kTiles>
struct Running {
  float max[kTiles][2], sum[kTiles][2];
  float bias[kTiles][2];         // int4: the part of the output that is the same in all channels
  float out[kTiles][D / 16][4];  // C fragments, rows are channels

  __device__ __forceinline__ void reset() {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) max[n][e] = -INFINITY, sum[n][e] = bias[n][e] = 0;
#pragma unroll
      for (int c = 0; c < D / 16; ++c) {
#pragma unroll
        for (int w = 0; w < 4; ++w) out[n][c][w] = 0;
      }
    }
  }

  // Raises the maxima to those of the scores, whose columns are 2 q and 2 q + 1 as well.
  __device__ __forceinline__ void raise(const float (&scores)[kTiles][4]) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float peak = fmaxf(scores[n][e], scores[n][2 + e]);
#pragma unroll
        for (int apart = 4; apart < 32; apart *= 2)
          peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, apart));
        peak = fmaxf(peak, max[n][e]);
        const float shrink = power2(max[n][e] - (peak == -INFINITY ? 0.0f : peak));
        max[n][e] = peak;
        sum[n][e] *= shrink, bias[n][e] *= shrink;
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
    Fragments<type>::keys(keys, block, lane, k);
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

// Tile `warp` of a page in shared memory; the page's first token is at position `start`.
template <KvType type, int D, int kTiles>
__device__ __forceinline__ void attend(const Queries<type, D, kTiles>& queries, const uint8_t* page,
                                       int start, int warp, int lane, Seen seen,
                                       Running<D, kTiles>& state) {
  using Bytes = HeadBytes<type, D>;
  constexpr int kTerms = Queries<type, D, kTiles>::kTerms;
  const int r = lane / 4, q = lane % 4;
  start += 16 * warp;
  if (start > seen.last || start + 15 < seen.first) return;
  float scores[kTiles][4];
  score<type, D>(queries, page + warp * Bytes::kTile, lane, scores);

  float inverse[2] = {1, 1}, min[2] = {};  // 1 / scale of V, and its minimum, of tokens r and r + 8
  if constexpr (type != KvType::bf16) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int at = 4 * (16 * warp + r + 8 * h);
      const TokenWord<type> k{*reinterpret_cast<const uint32_t*>(page + Bytes::kKeyWords + at)};
      const TokenWord<type> v{*reinterpret_cast<const uint32_t*>(page + Bytes::kValueWords + at)};
      const float log2_scale = __log2f(v.safe_scale());
      inverse[h] = __fdividef(1.0f, v.safe_scale());
      min[h] = v.min();
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = scores[n][2 * h + e];
          x = x * k.scale() + log2_scale;
          if constexpr (type == KvType::int4) x += k.min() * queries.sums[n][e];
        }
      }
    }
  }
  const bool is_whole = start >= seen.first && start + 15 <= seen.last;
  if (!is_whole) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int position = start + r + 8 * h;
      if (position >= seen.first && position <= seen.last) continue;
      inverse[h] = min[h] = 0;
#pragma unroll
      for (int n = 0; n < kTiles; ++n) scores[n][2 * h] = scores[n][2 * h + 1] = -INFINITY;
    }
  }

  bool grows = false;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int w = 0; w < 4; ++w) grows |= !(scores[n][w] <= state.max[n][w % 2] + kSlack);
  }
  if (__any_sync(~0u, grows)) state.raise(scores);

  uint32_t p[kTerms][kTiles][2];  // B fragments, rows are tokens
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float x[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float base = state.max[n][e] == -INFINITY ? 0.0f : state.max[n][e];
        x[e] = power2(scores[n][2 * h + e] - base);
        const float probability = type == KvType::bf16 ? x[e] : x[e] * inverse[h];
        state.sum[n][e] += probability;
        if constexpr (type == KvType::int4) state.bias[n][e] += probability * min[h];
      }
      const uint32_t pair = rounded_pair<type>(x[0], x[1]);
      p[0][n][h] = transposed(pair);
      if constexpr (kTerms == 2) {
        const float2 rounded = widened_pair<type>(pair);
        p[1][n][h] = transposed(rounded_pair<type>(x[0] - rounded.x, x[1] - rounded.y));
      }
    }
  }
#pragma unroll
  for (int block = 0; block < D / 64; ++block) {
    uint32_t v[4][4];
    Fragments<type>::values(page + Bytes::kPlane + warp * Bytes::kTile, block, lane, v);
    if (start + 15 > seen.last) clear_beyond(v, seen.last + 1 - start, q);
#pragma unroll
    for (int t = 0; t < kTerms; ++t) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          Fragments<type>::Mma::run(state.out[n][4 * block + c], v[c][0], v[c][1], v[c][2], v[c][3],
                                    p[t][n][0], p[t][n][1]);
        }
      }
    }
  }
}

// Rows of unnormalized output, [D + kRowPadding] floats each, of `parts` parts: four channels from
// d on of all, added. part(i) is the i-th part's row.
template <int D, typename Part>
__device__ __forceinline__ float4 merged(int d, int parts, Part part, float* sum) {
  float peak = -INFINITY, total = 0;
  float4 value{};
  // Eight at a time, the last one again where there are fewer, so that all are under way at once.
  constexpr int kAtOnce = 8;
  for (int first = 0; first < parts; first += kAtOnce) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      peak = fmaxf(peak, __ldcg(part(min(first + i, parts - 1)) + D));
  }
  const float base = peak == -INFINITY ? 0.0f : peak;
  for (int first = 0; first < parts; first += kAtOnce) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const float* row = part(min(first + i, parts - 1));
      const float2 of_row = __ldcg(reinterpret_cast<const float2*>(row + D));
      const float4 x = __ldcg(reinterpret_cast<const float4*>(row + d));
      const float weight = first + i < parts ? power2(of_row.x - base) : 0.0f;
      total += weight * of_row.y;
      value.x += weight * x.x, value.y += weight * x.y;
      value.z += weight * x.z, value.w += weight * x.w;
    }
  }
  *sum = total;
  return value;
}

// Sums over the warp's lanes, and what the warp knows into its rows of shared memory [share][D +
// 4].
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
#pragma unroll
      for (int c = 0; c < D / 16; ++c) {
        row[16 * c + r] = state.out[n][c][e] + (type == KvType::int4 ? bias : 0.0f);
        row[16 * c + r + 8] = state.out[n][c][2 + e] + (type == KvType::int4 ? bias : 0.0f);
      }
      if (r == 0) row[D] = state.max[n][e], row[D + 1] = sum;
    }
  }
}

__device__ __forceinline__ void meet() {
  asm volatile("bar.sync 1, %0;" ::"n"(kWarps * 32) : "memory");
}

__device__ __forceinline__ void store4(float* to, const float4& x, float factor) {
  *reinterpret_cast<float4*>(to) = {x.x * factor, x.y * factor, x.z * factor, x.w * factor};
}

// The unit's result out of the warps' rows: the output, or a partial one and, of the last unit to
// arrive, the output of all.
template <int D>
__device__ void finish(const AttentionItem& item, const StepView& step, int H, int G, int g,
                       const float* rows, float* out) {
  __shared__ bool is_last;
  constexpr int kRow = D + kRowPadding;
  const int share = H / G, thread = threadIdx.x;
  float* output = out + (static_cast<int64_t>(item.first_token) * H + g * share) * D;
  const auto partial = [&](int slot, int row) {
    return step.partials + (static_cast<int64_t>(slot) * H + g * share + row) * kRow;
  };
  for (int i = thread * 4; i < share * D; i += kWarps * 32 * 4) {
    const int row = i / D, d = i % D;
    float4 value{};
    float peak = -INFINITY, sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) peak = fmaxf(peak, rows[(w * share + row) * kRow + D]);
    const float base = peak == -INFINITY ? 0.0f : peak;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float* part = rows + (w * share + row) * kRow;
      const float4 x = *reinterpret_cast<const float4*>(part + d);
      const float weight = power2(part[D] - base);
      sum += weight * part[D + 1];
      value.x += weight * x.x, value.y += weight * x.y;
      value.z += weight * x.z, value.w += weight * x.w;
    }
    if (item.slot < 0) {
      store4(output + i, value, 1.0f / sum);
    } else {
      float* to = partial(item.slot, row);
      store4(to + d, value, 1.0f);
      if (d == 0) to[D] = peak, to[D + 1] = sum;
    }
  }
  if (item.slot < 0) return;
  __threadfence();
  meet();
  if (thread == 0) {
    const auto count = static_cast<unsigned>(item.num_items - 1);
    is_last = atomicInc(step.counters + item.slot_begin * G + g, count) ==
              count;  // back to zero after the last
  }
  meet();
  if (!is_last) return;
  __threadfence();
  for (int i = thread * 4; i < share * D; i += kWarps * 32 * 4) {
    float sum;
    const float4 value = merged<D>(
        i % D, item.num_items, [&](int part) { return partial(item.slot_begin + part, i / D); },
        &sum);
    store4(output + i, value, 1.0f / sum);
  }
}

// The item of a unit; an empty one behind the last.
__device__ __forceinline__ AttentionItem item_of(const StepView& step, int G, int unit) {
  return unit < step.num_items * G ? step.items[unit / G] : AttentionItem{};
}

// The copying warp: all pages of the block's units, in order.
template <KvType type, int D, int kTiles>
__device__ __forceinline__ void copy_pages(const StepView& step, int G, const Pages& cache,
                                           Ring<kStages<type, D, kTiles>>& ring, uint8_t* stages) {
  constexpr int kBytes = HeadBytes<type, D>::kAll;
  const int lane = threadIdx.x % 32;
  RingCursor<kStages<type, D, kTiles>> cursor;
  bool has_waited = false;
  for (int unit = blockIdx.x;; unit += gridDim.x) {
    const AttentionItem item = item_of(step, G, unit);
    if (item.num_tokens == 0) break;
    const int appended = item.position / static_cast<int>(kPageTokens);
    for (int first = item.page_begin; first < item.page_end; first += 32) {
      const int mine = min(first + lane, item.page_end - 1);
      const int32_t page_number = step.pages[item.pages + mine];
      const int count = min(32, item.page_end - first);
      for (int i = 0; i < count; ++i) {
        if (first + i >= appended && !has_waited) {
          wait_for_inputs();
          has_waited = true;
        }
        const uint8_t* head = cache.head(__shfl_sync(~0u, page_number, i), unit % G);
        if (lane == 0) {
          wait_barrier(&ring.empty[cursor.stage], cursor.phase ^ 1);
          expect_bytes(&ring.full[cursor.stage], kBytes);
          bulk_copy(stages + cursor.stage * kBytes, head, kBytes, &ring.full[cursor.stage]);
        }
        cursor.advance();
      }
    }
  }
}

template <KvType type, int D, int kTiles>
__global__ void __launch_bounds__((kWarps + 1) * 32, kResident<type, kTiles>)
    decode_kernel(const float* qkv, const StepView step, int H, int G, int window,
                  const Pages cache, float* out) {
  extern __shared__ __align__(128) uint8_t shared_bytes[];
  __shared__ Ring<kStages<type, D, kTiles>> ring;
  constexpr int kBytes = HeadBytes<type, D>::kAll;
  float* rows = reinterpret_cast<float*>(shared_bytes + kStages<type, D, kTiles> * kBytes);
  launch_dependents();
  ring.init(kWarps);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, share = H / G;
  if (warp == kWarps) {
    copy_pages<type, D, kTiles>(step, G, cache, ring, shared_bytes);
    return;
  }
  const int64_t ld = static_cast<int64_t>(H + 2 * G) * D;
  RingCursor<kStages<type, D, kTiles>> cursor;
  int unit = blockIdx.x;
  AttentionItem item = item_of(step, G, unit);  // the host's, so it is there before the inputs are
  wait_for_inputs();
  while (item.num_tokens != 0) {
    const int g = unit % G;
    Queries<type, D, kTiles> queries;
    queries.load(qkv + item.first_token * ld + g * share * D, share, lane);
    Running<D, kTiles> state;
    state.reset();
    const Seen seen{window == 0 ? 0 : max(0, item.position + 1 - window), item.position};
    for (int page = item.page_begin; page < item.page_end; ++page) {
      wait_barrier(&ring.full[cursor.stage], cursor.phase);
      attend<type, D, kTiles>(queries, shared_bytes + cursor.stage * kBytes,
                              page * static_cast<int>(kPageTokens), warp, lane, seen, state);
      __syncwarp();
      if (lane == 0) arrive(&ring.empty[cursor.stage]);
      cursor.advance();
    }
    unit += gridDim.x;
    const AttentionItem next = item_of(step, G, unit);
    meet();  // the rows of the unit before have been read
    leave<type, D, kTiles>(state, share, lane, rows + warp * share * (D + kRowPadding));
    meet();
    finish<D>(item, step, H, G, g, rows, out);
    item = next;
  }
}

template <KvType type, int D, int kTiles>
void run(const Context& context, const float* qkv, int64_t H, const KvCache& cache, int64_t layer,
         float* out) {
  constexpr int kThreads = (kWarps + 1) * 32;
  constexpr size_t kBytes = kStages<type, D, kTiles> * HeadBytes<type, D>::kAll +
                            kWarps * 8 * kTiles * (D + kRowPadding) * sizeof(float);
  const auto kernel = decode_kernel<type, D, kTiles>;
  static const int resident = [&] {
    int blocks = 0;
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, kThreads, kBytes));
    return blocks * cuda_device(context).multiprocessors();
  }();
  const StepView& step = step_view(context);
  const int64_t G = cache.layout.G, units = step.num_items * G;
  launch(context, kernel, dim3(static_cast<unsigned>(std::min<int64_t>(units, resident))),
         dim3(kThreads), kBytes, qkv, step, static_cast<int>(H), static_cast<int>(G),
         static_cast<int>(cache.layout.window), Pages(cache, layer), out);
}

template <KvType type>
void run_type(const Context& context, const float* qkv, int64_t H, const KvCache& cache,
              int64_t layer, float* out) {
  const bool is_wide = cache.layout.D == 128, has_more = H / cache.layout.G > 8;
  const auto kernel = is_wide ? (has_more ? run<type, 128, 2> : run<type, 128, 1>)
                              : (has_more ? run<type, 64, 2> : run<type, 64, 1>);
  kernel(context, qkv, H, cache, layer, out);
}

}  // namespace

void cuda_decode_attention(const Context& context, const float* qkv, int64_t H,
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
