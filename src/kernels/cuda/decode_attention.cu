// Attention of single tokens over the paged cache: decoding.
//
// A unit of work is one AttentionItem (a token and a run of its pages) and one kv head. A block
// takes units that lie the grid apart. One warp copies their queries and pages into rings in shared
// memory, across the seams between units, and begins before the kernel's inputs are there: only a
// page that this step appends to has to wait. Four warps have 16 tokens of each page: S = K Q^T
// with the query heads as the columns of the mma, a running softmax, O += V^T P; so K and V are
// read once for all heads of the group and go from the page to the tensor cores as they lie (bf16)
// or after one or two instructions a pair (narrow types, as f16). The warps meet in shared memory
// at the end of each part of the context; the parts meet in memory, where the block that has all of
// them, or the last one to arrive, adds them up in their order. How a context is cut into parts
// depends on nothing but its length, so neither does the result; how many parts a unit has follows
// the batch. Bound by bytes: the pages, once.
//
// Where a step has nothing but single tokens, this kernel appends them as well: every unit rotates
// its queries, and the one that has the token's page adds k and v to the copy in shared memory and
// to the cache. Then no page waits for the inputs.
//
// Whatever a block loads waits behind the pages under way to its multiprocessor, several us when
// memory is busy. So nothing on the way of the pages waits for it: the warps look a unit ahead, and
// where there are sequences enough a unit has all of one's parts.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/decode_tiles.cuh"
#include "kernels/cuda/head_transform.cuh"
#include "kernels/cuda/ring.cuh"

namespace tandem {
namespace {

constexpr int kWarps = 4;  // that compute; one more copies
constexpr int kMaxStages = 12;
constexpr int kBlockBytes = 115200;  // of shared memory: two blocks fill a multiprocessor

// Pages that are scored together, so that one has something to do while the other waits.
template <KvType type, int kTiles>
constexpr int kPagesAtOnce = type == KvType::bf16 || kTiles > 1 ? 1 : 2;

// A place in a ring of so many stages.
struct Cursor {
  int stages, stage = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == stages) stage = 0, phase ^= 1;
  }
};

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

__device__ __forceinline__ void meet() {
  asm volatile("bar.sync 1, %0;" ::"n"(kWarps * 32) : "memory");
}

__device__ __forceinline__ float4 times(const float4& x, float factor) {
  return {x.x * factor, x.y * factor, x.z * factor, x.w * factor};
}

__device__ __forceinline__ void store4(const Attended& to, int64_t at, const float4& x) {
  if (to.f32 != nullptr) {
    *reinterpret_cast<float4*>(to.f32 + at) = x;
  } else {
    const auto pair = [&](float a, float b) {
      return to.is_bf16 ? rounded_pair<KvType::bf16>(a, b) : rounded_pair<KvType::int8>(a, b);
    };
    *reinterpret_cast<uint2*>(to.half + at) = {pair(x.x, x.y), pair(x.z, x.w)};
  }
}

// Adds up the warps' rows of one part: the output where it is the only one, else a partial result.
template <int D>
__device__ __forceinline__ void add_warps(const float* rows, int share, bool is_only,
                                          const Attended& out, int64_t at, float* partial) {
  constexpr int kRow = D + kRowPadding;
  for (int i = threadIdx.x * 4; i < share * D; i += kWarps * 32 * 4) {
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
    if (is_only) {
      store4(out, at + i, times(value, 1.0f / sum));
    } else {
      *reinterpret_cast<float4*>(partial + row * kRow + d) = value;
      if (d == 0) partial[row * kRow + D] = peak, partial[row * kRow + D + 1] = sum;
    }
  }
}

// Whether the block's item is the last of its query's to arrive; what the others left is visible
// then.
__device__ __forceinline__ bool arrive_last(uint32_t* counter, int num_items) {
  __shared__ bool is_last;
  meet();
  if (threadIdx.x == 0) {
    __threadfence();
    const auto count = static_cast<unsigned>(num_items - 1);
    is_last = atomicInc(counter, count) == count;  // back to zero after the last
    __threadfence();
  }
  meet();
  return is_last;
}

// What the copying warp and the others share. In dynamic shared memory lie the stages of the pages,
// two of heads [share + 3][D] (the queries and, where the kernel appends, k, v, and the token's
// angles), k and v [2][D] as they are appended, and the warps' rows.
struct Rings {
  Ring<kMaxStages> pages;
  Ring<2> heads;
};

template <KvType type, int D>
struct Block {
  static constexpr int kPageBytes = HeadBytes<type, D>::kAll;
  const StepView& step;
  int H, G;
  Rings& rings;
  int num_stages;
  uint8_t* stages;

  __device__ __forceinline__ int share() const { return H / G; }
  __device__ __forceinline__ float* heads(int stage) const {
    return reinterpret_cast<float*>(stages + num_stages * kPageBytes) + stage * (share() + 3) * D;
  }
  __device__ __forceinline__ float* appended() const { return heads(2); }
  __device__ __forceinline__ float* rows() const { return appended() + 2 * D; }
  static constexpr int bytes_beside(int share) {
    return (2 * (share + 4) * D + kWarps * share * (D + kRowPadding)) *
           static_cast<int>(sizeof(float));
  }

  // The item of a unit; an empty one behind the last.
  __device__ __forceinline__ AttentionItem item_of(int unit) const {
    return unit < step.num_items * G ? step.items[unit / G] : AttentionItem{};
  }
};

// By the copying warp: all of the block's units, in order. What tells it where they are is loaded a
// unit ahead.
template <KvType type, int D>
struct Copier {
  const Block<type, D>& block;
  const Pages& cache;
  const float* qkv;
  const float* cos_sin;  // [T, D] where the kernel appends; null: it need not
  int lane;
  Cursor cursor, heads{2};

  __device__ __forceinline__ int32_t page_numbers(const AttentionItem& item, int first) const {
    if (item.num_tokens == 0) return 0;
    return block.step.pages[item.pages + min(first + lane, item.page_end - 1)];
  }

  __device__ __forceinline__ void begin(uint64_t* full, uint64_t* empty, const Cursor& at,
                                        int bytes) const {
    wait_barrier(&empty[at.stage], at.phase ^ 1);
    expect_bytes(&full[at.stage], static_cast<uint32_t>(bytes));
  }

  __device__ __forceinline__ void copy_page(int32_t page, int g) {
    constexpr int kBytes = Block<type, D>::kPageBytes;
    if (lane == 0) {
      auto& ring = block.rings.pages;
      begin(ring.full, ring.empty, cursor, kBytes);
      bulk_copy(block.stages + cursor.stage * kBytes, cache.head(page, g), kBytes,
                &ring.full[cursor.stage]);
    }
    cursor.advance();
  }

  __device__ __forceinline__ void copy_heads(const AttentionItem& item, int g) {
    if (lane == 0) {
      auto& ring = block.rings.heads;
      const int64_t t = item.first_token, H = block.H, G = block.G;
      const int share = block.share(), count = cos_sin == nullptr ? share : share + 3;
      const float* row = qkv + t * (H + 2 * G) * D;
      float* to = block.heads(heads.stage);
      const auto copy = [&](int at, const float* from, int n) {
        bulk_copy(to + at * D, from, static_cast<uint32_t>(n * D * 4), &ring.full[heads.stage]);
      };
      begin(ring.full, ring.empty, heads, count * D * 4);
      copy(0, row + g * share * D, share);
      if (cos_sin != nullptr) {
        copy(share, row + (H + g) * D, 1);
        copy(share + 1, row + (H + G + g) * D, 1);
        copy(share + 2, cos_sin + t * D, 1);
      }
    }
    heads.advance();
  }

  __device__ __forceinline__ void copy_units() {
    const int step = static_cast<int>(gridDim.x);
    int unit = static_cast<int>(blockIdx.x);
    AttentionItem item = block.item_of(unit), next = block.item_of(unit + step);
    int32_t numbers = page_numbers(item, item.page_begin);
    for (bool is_first = true; item.num_tokens != 0; is_first = false) {
      const int g = unit % block.G, pages = item.page_end - item.page_begin;
      int32_t more = page_numbers(item, item.page_begin + 32);
      const int32_t next_numbers = page_numbers(next, next.page_begin);
      const AttentionItem after = block.item_of(unit + 2 * step);
      int copied = 0;
      if (is_first) {
        const int appended = item.position / static_cast<int>(kPageTokens) - item.page_begin;
        const int early = min(block.num_stages, cos_sin != nullptr ? pages : min(appended, pages));
        for (; copied < early; ++copied) copy_page(__shfl_sync(~0u, numbers, copied), g);
        wait_for_inputs();
      }
      copy_heads(item, g);
      for (int begin = 0; begin < pages; begin += 32) {
        for (; copied < min(begin + 32, pages); ++copied)
          copy_page(__shfl_sync(~0u, numbers, copied - begin), g);
        numbers = more;
        more = page_numbers(item, item.page_begin + begin + 64);
      }
      unit += step;
      item = next, next = after, numbers = next_numbers;
    }
  }
};

// Whether the item has the page and the warp the tile that its token is appended to.
__device__ __forceinline__ bool has_tile(const AttentionItem& item, int warp) {
  constexpr int kPage = static_cast<int>(kPageTokens);
  return item.position / kPage == item.page_end - 1 && item.position % kPage / 16 == warp;
}

// k and v [2][D] into their places in a page, here or in the cache.
template <KvType type, int D>
__device__ __forceinline__ void append(const float* heads, uint8_t* page, int position) {
  const int token = position % static_cast<int>(kPageTokens);
  float x[D / 32];
  load_head<D>(heads, nullptr, x);
  store_head<type, D, false>(x, page, token);
  load_head<D>(heads + D, nullptr, x);
  store_head<type, D, true>(x, page, token);
}

// By the computing warps: the heads of a stage as attention wants them. Queries change in place; k
// and v go to Block::appended(), by the warp that has their tile, and into the cache.
template <KvType type, int D>
__device__ __forceinline__ void transform_heads(const Block<type, D>& block,
                                                const HeadTransform& transform, const Pages& cache,
                                                const AttentionItem& item, int g, int warp,
                                                int lane, float* heads) {
  const int share = block.share();
  const float* bias = transform.bias;
  const auto bias_of = [&](int h) { return bias == nullptr ? nullptr : bias + h * D; };
  const auto put = [&](const float(&x)[D / 32], float* to) {
#pragma unroll
    for (int i = 0; i < D / 32; ++i) to[lane + 32 * i] = x[i];
  };
  Angles<D> angles;
  angles.load(heads + (share + 2) * D);
  float x[D / 32];
  for (int h = warp; h < share; h += kWarps) {
    load_head<D>(heads + h * D, bias_of(g * share + h), x);
    rotate_head<type, D>(x, transform.q_norm, transform.eps, angles);
    put(x, heads + h * D);
  }
  fence_before_copies();
  if (!has_tile(item, warp)) return;
  load_head<D>(heads + share * D, bias_of(block.H + g), x);
  rotate_head<type, D>(x, transform.k_norm, transform.eps, angles);
  put(x, block.appended());
  load_head<D>(heads + (share + 1) * D, bias_of(block.H + block.G + g), x);
  put(x, block.appended() + D);
  append<type, D>(block.appended(), cache.head(block.step.pages[item.pages + item.page_end - 1], g),
                  item.position);
}

// The parts of a query added up, once they are all there: by the block that had all of them, or the
// last to arrive.
template <int D>
__device__ __forceinline__ void add_parts(const AttentionItem& item, const StepView& step, int G,
                                          int g, int share, const float* partials,
                                          int64_t part_floats, const Attended& out, int64_t at) {
  if (item.num_items == 1) {
    meet();
  } else if (!arrive_last(step.counters + item.slots * G + g, item.num_items)) {
    return;
  }
  for (int i = threadIdx.x * 4; i < share * D; i += kWarps * 32 * 4) {
    const float* row = partials + i / D * (D + kRowPadding);
    float sum;
    const float4 value = merged<D>(
        i % D, item.num_parts, [&](int part) { return row + part * part_floats; }, &sum);
    store4(out, at + i, times(value, 1.0f / sum));
  }
}

// By the computing warps: a part of the context, pages up to `end`. Where it appends, the last
// token is not in its page yet, but in Block::appended().
template <KvType type, int D, int kTiles>
__device__ __forceinline__ void attend_pages(const Block<type, D>& block,
                                             const Queries<type, D, kTiles>& queries, bool appends,
                                             int page, int end, Seen seen, int warp, int lane,
                                             Cursor& cursor, Running<D, kTiles>& state) {
  auto& ring = block.rings.pages;
  const auto attend = [&]<int kPages>(std::integral_constant<int, kPages>) {
    Tiles<type, D, kTiles, kPages> tiles;
    tiles.start = page * static_cast<int>(kPageTokens) + 16 * warp;
    tiles.warp = warp, tiles.lane = lane;
    uint64_t* empty[kPages];
#pragma unroll
    for (int u = 0; u < kPages; ++u) {
      wait_barrier(&ring.full[cursor.stage], cursor.phase);
      uint8_t* copy = block.stages + cursor.stage * Block<type, D>::kPageBytes;
      if (appends && page + u == seen.last / static_cast<int>(kPageTokens)) {
        append<type, D>(block.appended(), copy, seen.last);
        fence_before_copies();
        __syncwarp();
      }
      tiles.pages[u] = copy;
      empty[u] = &ring.empty[cursor.stage];
      cursor.advance();
    }
    if (tiles.start <= seen.last && tiles.end() >= seen.first) {
      tiles.score_all(queries);
      tiles.mask(seen);
      tiles.weigh(state);
      tiles.add_values(seen, state);
    }
    __syncwarp();
#pragma unroll
    for (int u = 0; u < kPages; ++u) {
      if (lane == 0) arrive(empty[u]);
    }
    page += kPages;
  };
  constexpr int kAtOnce = kPagesAtOnce<type, kTiles>;
  while (page + kAtOnce <= end) attend(std::integral_constant<int, kAtOnce>());
  while (page < end) attend(std::integral_constant<int, 1>());
}

template <KvType type, int D, int kTiles>
__global__ void __launch_bounds__((kWarps + 1) * 32, kDecodeBlocks)
    decode_kernel(const float* qkv, const Appending appending, const StepView step, int H, int G,
                  int window, const Pages cache, int num_stages, const Attended out) {
  extern __shared__ __align__(128) uint8_t stages[];
  __shared__ Rings rings;
  launch_dependents();
  rings.heads.init(kWarps);
  rings.pages.init(kWarps);
  const Block<type, D> block{step, H, G, rings, num_stages, stages};
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, share = H / G;
  if (warp == kWarps) {
    Copier<type, D>{block, cache, qkv, appending.cos_sin, lane, {num_stages}}.copy_units();
    return;
  }
  Cursor cursor{num_stages}, heads{2};
  int unit = blockIdx.x;
  AttentionItem item = block.item_of(unit);  // the host's, so it is there before the inputs are
  wait_for_inputs();
  while (item.num_tokens != 0) {
    const int g = unit % G;
    unit += gridDim.x;
    const AttentionItem next = block.item_of(unit);
    const int64_t output = (static_cast<int64_t>(item.first_token) * H + g * share) * D;
    const int64_t part_floats = static_cast<int64_t>(H) * (D + kRowPadding);
    float* partials = step.partials + item.slots * part_floats + g * share * (D + kRowPadding);
    Queries<type, D, kTiles> queries;
    wait_barrier(&rings.heads.full[heads.stage], heads.phase);
    if (appending.cos_sin != nullptr) {
      transform_heads(block, appending.transform, cache, item, g, warp, lane,
                      block.heads(heads.stage));
      meet();
    }
    queries.load(block.heads(heads.stage), share, lane);
    __syncwarp();
    if (lane == 0) arrive(&rings.heads.empty[heads.stage]);
    heads.advance();
    const bool appends = appending.cos_sin != nullptr && has_tile(item, warp);
    const Seen seen{window == 0 ? 0 : max(0, item.position + 1 - window), item.position};
    int part = item.part;
    for (int page = item.page_begin; page < item.page_end; page += item.part_pages, ++part) {
      Running<D, kTiles> state;
      state.reset();
      attend_pages(block, queries, appends, page, min(page + item.part_pages, item.page_end), seen,
                   warp, lane, cursor, state);
      meet();  // the rows of the part before have been read
      leave<type, D, kTiles>(state, share, lane, block.rows() + warp * share * (D + kRowPadding));
      meet();
      const bool is_only = item.num_parts == 1;
      add_warps<D>(block.rows(), share, is_only, out, output, partials + part * part_floats);
    }
    if (item.num_parts > 1)
      add_parts<D>(item, step, G, g, share, partials, part_floats, out, output);
    item = next;
  }
}

template <KvType type, int D, int kTiles>
void run(const Context& context, const float* qkv, const Appending& appending, int64_t H,
         const KvCache& cache, int64_t layer, const Attended& out) {
  constexpr int kPageBytes = Block<type, D>::kPageBytes;
  constexpr int kMostBytes =
      std::max(kBlockBytes, 2 * kPageBytes + Block<type, D>::bytes_beside(8 * kTiles));
  const auto kernel = decode_kernel<type, D, kTiles>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMostBytes);
  CUDA_CHECK(allowed);
  const int64_t G = cache.layout.G;
  const int beside = Block<type, D>::bytes_beside(static_cast<int>(H / G));
  const int num_stages = std::clamp((kBlockBytes - beside) / kPageBytes, 2, kMaxStages);
  const StepView& step = step_view(context);
  const int64_t slots = kDecodeBlocks * cuda_device(context).multiprocessors();
  launch(context, kernel, dim3(static_cast<unsigned>(std::min(step.num_items * G, slots))),
         dim3((kWarps + 1) * 32), static_cast<size_t>(num_stages * kPageBytes + beside), qkv,
         appending, step, static_cast<int>(H), static_cast<int>(G),
         static_cast<int>(cache.layout.window), Pages(cache, layer), num_stages, out);
}

template <KvType type>
void run_type(const Context& context, const float* qkv, const Appending& appending, int64_t H,
              const KvCache& cache, int64_t layer, const Attended& out) {
  const bool is_wide = cache.layout.D == 128, has_more = H / cache.layout.G > 8;
  const auto kernel = is_wide ? (has_more ? run<type, 128, 2> : run<type, 128, 1>)
                              : (has_more ? run<type, 64, 2> : run<type, 64, 1>);
  kernel(context, qkv, appending, H, cache, layer, out);
}

}  // namespace

void cuda_decode_attention(const Context& context, const float* qkv, const Appending& appending,
                           int64_t H, const KvCache& cache, int64_t layer, const Attended& out) {
  const auto run = [&](auto run_type) { run_type(context, qkv, appending, H, cache, layer, out); };
  switch (cache.layout.type) {
    case KvType::bf16:
      return run(run_type<KvType::bf16>);
    case KvType::fp8:
      return run(run_type<KvType::fp8>);
    case KvType::int8:
      return run(run_type<KvType::int8>);
    case KvType::int4:
      return run(run_type<KvType::int4>);
    case KvType::f32:
      break;
  }
  CUDA_DOOR(false, static_cast<int64_t>(cache.layout.type));
}

}  // namespace tandem
