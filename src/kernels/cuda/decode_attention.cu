// Attention of single tokens over the paged cache: decoding.
//
// A unit of work is one AttentionItem (a token and a run of its pages) and one kv head. A block
// takes units that lie the grid apart. One warp copies pages into a ring in shared memory, across
// the seams between units, and begins before the kernel's inputs are there: only a page that this
// step appends to has to wait. Four warps have 16 tokens of each page: S = K Q^T with the query
// heads as the columns of the mma, a running softmax, O += V^T P; so K and V are read once for all
// heads of the group and go from the page to the tensor cores as they lie (bf16) or after one to
// two instructions a pair (narrow types, as f16). One more warp prepares the next unit's queries
// and adds up what the four leave of the last one, so that these never wait for memory. The units
// of a long context meet in memory, where the last one to arrive adds them up in their order. How a
// context is cut depends on nothing but its length. Bound by bytes: the pages, once.
//
// With a bf16 cache, queries and probabilities enter as two terms, the rounded number and what the
// rounding left: the result is as good as f32 over the same cache. With a narrow one they are f16.
// Scales of K multiply the scores. Scales of V join the exponent: a probability times its scale is
// 2^(score + log2 scale - maximum), at most 2^kSlack, so that nothing leaves the range of f16.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/kv_page.cuh"
#include "kernels/cuda/ring.cuh"

namespace tandem {
namespace {

constexpr int kWarps = 4;  // that compute
constexpr int kCopyWarp = kWarps, kFinishWarp = kWarps + 1;
constexpr int kThreads = (kWarps + 2) * 32;
constexpr int kMaxStages = 8;
constexpr int kBlockBytes = 115200;  // of shared memory: two blocks fill a multiprocessor
constexpr float kSlack = 8;          // powers of two that a score may exceed the running maximum by

// One unit as the computing warps need it.
struct Unit {
  int page_begin, num_pages;  // no pages: there are no more units
  int first, last;            // positions seen
};

// The end of a stage's use and the hand-over of a unit's queries and rows, beside the ring's.
struct Barriers {
  Ring<kMaxStages> ring;
  uint64_t queries_full, queries_empty, rows_full, rows_empty;
};

struct Cursor {
  int stage = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void advance(int stages) {
    if (++stage == stages) stage = 0, phase ^= 1;
  }
};

// The queries of a kv head as B fragments: column r is query head r, beyond them the last one
// again.
template <KvType type, int D, int kTiles>
struct Queries {
  static constexpr int kTerms = type == KvType::bf16 ? 2 : 1;
  uint32_t pairs[kTerms][kTiles][D / 8];
  float sums[kTiles][2];  // int4: over the channels, of columns 2 q and 2 q + 1

  // In shared memory: [terms][tiles][D / 32][lanes] of 16 bytes, then the sums of all columns.
  static constexpr int kPairBytes = kTerms * kTiles * D / 32 * 512;
  static constexpr int kBytes = kPairBytes + kTiles * 8 * 4;

  // By the finishing warp: heads [share][D] to shared memory.
  static __device__ __forceinline__ void prepare(const float* heads, int share, int lane,
                                                 uint8_t* to) {
    const int r = lane / 4, q = lane % 4;
    const float scale = 1.44269504f / sqrtf(static_cast<float>(D));
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const float* head = heads + min(8 * n + r, share - 1) * D + q * 16;
      float sum = 0;
#pragma unroll
      for (int i = 0; i < D / 32; ++i) {
        uint32_t words[kTerms][4];
#pragma unroll
        for (int w = 0; w < 4; w += 2) {
          const float4 x = *reinterpret_cast<const float4*>(head + i / 2 * 64 + i % 2 * 8 + w * 2);
          const float values[4] = {x.x * scale, x.y * scale, x.z * scale, x.w * scale};
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            const float a = values[2 * j], b = values[2 * j + 1];
            words[0][w + j] = rounded_pair<type>(a, b);
            const float2 rounded = widened_pair<type>(words[0][w + j]);
            sum += rounded.x + rounded.y;
            if constexpr (kTerms == 2)
              words[1][w + j] = rounded_pair<type>(a - rounded.x, b - rounded.y);
          }
        }
#pragma unroll
        for (int t = 0; t < kTerms; ++t) {
          uint8_t* place = to + (((t * kTiles + n) * (D / 32) + i) * 32 + lane) * 16;
          *reinterpret_cast<uint4*>(place) = {words[t][0], words[t][1], words[t][2], words[t][3]};
        }
      }
      if constexpr (type == KvType::int4) {
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (q == 0) reinterpret_cast<float*>(to + kPairBytes)[8 * n + r] = sum;
      }
    }
  }

  // By the computing warps.
  __device__ __forceinline__ void load(const uint8_t* from, int lane) {
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int t = 0; t < kTerms; ++t) {
#pragma unroll
        for (int i = 0; i < D / 32; ++i) {
          const uint4 words = load16(from + (((t * kTiles + n) * (D / 32) + i) * 32 + lane) * 16);
#pragma unroll
          for (int w = 0; w < 4; ++w) pairs[t][n][4 * i + w] = word(words, w);
        }
      }
      if constexpr (type == KvType::int4) {
        const float* of_columns = reinterpret_cast<const float*>(from + kPairBytes) + 8 * n;
        sums[n][0] = of_columns[2 * (lane % 4)], sums[n][1] = of_columns[2 * (lane % 4) + 1];
      }
    }
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

// Tile `warp` of a page in shared memory; the page's first token is at position `start`.
template <KvType type, int D, int kTiles>
__device__ __forceinline__ void attend(const Queries<type, D, kTiles>& queries, const uint8_t* page,
                                       int start, int warp, int lane, const Unit& seen,
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

// D / 32 neighbouring channels of a row, a lane's.
template <int D>
struct Channels {
  float x[D / 32] = {};
  using Vector = std::conditional_t<D == 128, float4, float2>;

  // Past L1: other blocks wrote it.
  __device__ __forceinline__ void add_global(const float* row, int lane, float weight) {
    add(__ldcg(reinterpret_cast<const Vector*>(row) + lane), weight);
  }
  __device__ __forceinline__ void add_shared(const float* row, int lane, float weight) {
    add(reinterpret_cast<const Vector*>(row)[lane], weight);
  }
  __device__ __forceinline__ void store(float* row, int lane, float factor) const {
    Vector v;
    float* values = reinterpret_cast<float*>(&v);
#pragma unroll
    for (int i = 0; i < D / 32; ++i) values[i] = x[i] * factor;
    reinterpret_cast<Vector*>(row)[lane] = v;
  }

 private:
  __device__ __forceinline__ void add(const Vector& v, float weight) {
    const float* values = reinterpret_cast<const float*>(&v);
#pragma unroll
    for (int i = 0; i < D / 32; ++i) x[i] += weight * values[i];
  }
};

// The finishing warp's side of a unit.
template <int D, int kTiles>
struct Finish {
  const StepView& step;
  int H, G, g, lane;
  float* out;
  static constexpr int kRow = D + kRowPadding;

  __device__ __forceinline__ float* output(const AttentionItem& item, int row) const {
    return out + (static_cast<int64_t>(item.first_token) * H + g * (H / G) + row) * D;
  }
  __device__ __forceinline__ float* partial(int slot, int row) const {
    return step.partials + (static_cast<int64_t>(slot) * H + g * (H / G) + row) * kRow;
  }

  // Adds up the computing warps' rows: the output, or a partial one.
  __device__ void add_warps(const AttentionItem& item, const float* rows) const {
    const int share = H / G;
    for (int row = 0; row < share; ++row) {
      float peak = -INFINITY, sum = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) peak = fmaxf(peak, rows[(w * share + row) * kRow + D]);
      const float base = peak == -INFINITY ? 0.0f : peak;
      Channels<D> value;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        const float* part = rows + (w * share + row) * kRow;
        const float weight = power2(part[D] - base);
        sum += weight * part[D + 1];
        value.add_shared(part, lane, weight);
      }
      if (item.slot < 0) {
        value.store(output(item, row), lane, 1.0f / sum);
      } else {
        float* to = partial(item.slot, row);
        value.store(to, lane, 1.0f);
        if (lane == 0) to[D] = peak, to[D + 1] = sum;
      }
    }
  }

  // Whether this unit is the last of its query's to arrive.
  __device__ bool arrive_last(const AttentionItem& item) const {
    __threadfence();
    __syncwarp();
    bool is_last = false;
    if (lane == 0) {
      const auto count = static_cast<unsigned>(item.num_items - 1);
      is_last = atomicInc(step.counters + item.slot_begin * G + g, count) ==
                count;  // back to zero after the last
    }
    is_last = __shfl_sync(~0u, is_last, 0);
    __threadfence();
    return is_last;
  }

  // Adds up the partial results of a query: at most 32.
  __device__ void add_parts(const AttentionItem& item) const {
    constexpr int kMaxHeads = 8 * kTiles;
    const int share = H / G, parts = item.num_items;
    float weights[kMaxHeads];  // of part `lane`
#pragma unroll
    for (int row = 0; row < kMaxHeads; ++row) {
      if (row >= share) break;
      float2 max_and_sum{-INFINITY, 0};
      if (lane < parts) {
        const float* tail = partial(item.slot_begin + lane, row) + D;
        max_and_sum = __ldcg(reinterpret_cast<const float2*>(tail));
      }
      const float weight = power2(max_and_sum.x - warp_max(max_and_sum.x));
      weights[row] = weight / warp_sum(weight * max_and_sum.y);
    }
#pragma unroll
    for (int row = 0; row < kMaxHeads; ++row) {
      if (row >= share) break;
      Channels<D> value;
#pragma unroll 8
      for (int part = 0; part < parts; ++part) {
        value.add_global(partial(item.slot_begin + part, row), lane,
                         __shfl_sync(~0u, weights[row], part));
      }
      value.store(output(item, row), lane, 1.0f);
    }
  }
};

// The item of a unit; an empty one behind the last.
__device__ __forceinline__ AttentionItem item_of(const StepView& step, int G, int unit) {
  return unit < step.num_items * G ? step.items[unit / G] : AttentionItem{};
}

// The copying warp: all pages of the block's units, in order.
template <KvType type, int D>
__device__ __forceinline__ void copy_pages(const StepView& step, int G, const Pages& cache,
                                           Ring<kMaxStages>& ring, int num_stages,
                                           uint8_t* stages) {
  constexpr int kBytes = HeadBytes<type, D>::kAll;
  const int lane = threadIdx.x % 32;
  Cursor cursor;
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
        cursor.advance(num_stages);
      }
    }
  }
}

// The finishing warp: the queries of one unit after another, and what was left of the one before.
template <KvType type, int D, int kTiles>
__device__ __forceinline__ void finish_units(const float* qkv, const StepView& step, int H, int G,
                                             int window, Barriers& barriers, Unit& shared_unit,
                                             uint8_t* queries, const float* rows, float* out) {
  const int lane = threadIdx.x % 32, share = H / G;
  const int64_t ld = static_cast<int64_t>(H + 2 * G) * D;
  uint32_t phase = 0;  // of the unit to be finished
  const auto prepare = [&](const AttentionItem& item, int unit, uint32_t of_unit) {
    wait_barrier(&barriers.queries_empty, of_unit ^ 1);
    if (item.num_tokens != 0) {
      Queries<type, D, kTiles>::prepare(qkv + item.first_token * ld + unit % G * share * D, share,
                                        lane, queries);
    }
    if (lane == 0) {
      shared_unit = {item.page_begin, item.page_end - item.page_begin,
                     window == 0 ? 0 : max(0, item.position + 1 - window), item.position};
    }
    __syncwarp();
    if (lane == 0) arrive(&barriers.queries_full);
  };
  int unit = blockIdx.x;
  AttentionItem item = item_of(step, G, unit);  // the host's, so it is there before the inputs are
  wait_for_inputs();
  prepare(item, unit, phase);
  while (item.num_tokens != 0) {
    const int next_unit = unit + gridDim.x;
    const AttentionItem next = item_of(step, G, next_unit);
    prepare(next, next_unit, phase ^ 1);
    const Finish<D, kTiles> finish{step, H, G, unit % G, lane, out};
    wait_barrier(&barriers.rows_full, phase);
    finish.add_warps(item, rows);
    __syncwarp();
    if (lane == 0) arrive(&barriers.rows_empty);
    if (item.slot >= 0 && finish.arrive_last(item)) finish.add_parts(item);
    item = next, unit = next_unit, phase ^= 1;
  }
}

template <KvType type, int D, int kTiles>
__global__ void __launch_bounds__(kThreads, 2)
    decode_kernel(const float* qkv, const StepView step, int H, int G, int window,
                  const Pages cache, int num_stages, float* out) {
  extern __shared__ __align__(128) uint8_t shared_bytes[];
  __shared__ Barriers barriers;
  __shared__ Unit shared_unit;
  constexpr int kBytes = HeadBytes<type, D>::kAll;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, share = H / G;
  uint8_t* queries_bytes = shared_bytes + num_stages * kBytes;
  float* rows = reinterpret_cast<float*>(queries_bytes + Queries<type, D, kTiles>::kBytes);
  launch_dependents();
  if (threadIdx.x == 0) {
    init_barrier(&barriers.queries_full, 1);
    init_barrier(&barriers.queries_empty, kWarps);
    init_barrier(&barriers.rows_full, kWarps);
    init_barrier(&barriers.rows_empty, 1);
  }
  barriers.ring.init(kWarps);
  if (warp == kCopyWarp) {
    copy_pages<type, D>(step, G, cache, barriers.ring, num_stages, shared_bytes);
    return;
  }
  if (warp == kFinishWarp) {
    finish_units<type, D, kTiles>(qkv, step, H, G, window, barriers, shared_unit, queries_bytes,
                                  rows, out);
    return;
  }
  Cursor cursor;
  for (uint32_t phase = 0;; phase ^= 1) {
    Queries<type, D, kTiles> queries;
    wait_barrier(&barriers.queries_full, phase);
    const Unit unit = shared_unit;
    if (unit.num_pages == 0) break;
    queries.load(queries_bytes, lane);
    __syncwarp();
    if (lane == 0) arrive(&barriers.queries_empty);
    Running<D, kTiles> state;
    state.reset();
    for (int page = 0; page < unit.num_pages; ++page) {
      wait_barrier(&barriers.ring.full[cursor.stage], cursor.phase);
      attend<type, D, kTiles>(queries, shared_bytes + cursor.stage * kBytes,
                              (unit.page_begin + page) * static_cast<int>(kPageTokens), warp, lane,
                              unit, state);
      __syncwarp();
      if (lane == 0) arrive(&barriers.ring.empty[cursor.stage]);
      cursor.advance(num_stages);
    }
    wait_barrier(&barriers.rows_empty, phase ^ 1);
    leave<type, D, kTiles>(state, share, lane, rows + warp * share * (D + kRowPadding));
    __syncwarp();
    if (lane == 0) arrive(&barriers.rows_full);
  }
}

template <KvType type, int D, int kTiles>
void run(const Context& context, const float* qkv, int64_t H, const KvCache& cache, int64_t layer,
         float* out) {
  constexpr int kBytes = HeadBytes<type, D>::kAll;
  const auto kernel = decode_kernel<type, D, kTiles>;
  const int64_t G = cache.layout.G;
  const int beside = Queries<type, D, kTiles>::kBytes +
                     static_cast<int>(kWarps * (H / G) * (D + kRowPadding) * sizeof(float));
  const int num_stages = std::min(kMaxStages, (kBlockBytes - beside) / kBytes);
  static const bool is_ready = [&] {
    CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBlockBytes));
    return true;
  }();
  CUDA_DOOR(is_ready && num_stages >= 2, num_stages);
  const StepView& step = step_view(context);
  const int64_t units = step.num_items * G, slots = 2 * cuda_device(context).multiprocessors();
  launch(context, kernel, dim3(static_cast<unsigned>(std::min(units, slots))), dim3(kThreads),
         static_cast<size_t>(num_stages * kBytes + beside), qkv, step, static_cast<int>(H),
         static_cast<int>(G), static_cast<int>(cache.layout.window), Pages(cache, layer),
         num_stages, out);
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
