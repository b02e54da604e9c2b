// y[T, N] = x[T, K] . W[N, K]^T for one token or a few and weights of 4 bits: the kernel that
// decode runs at small batches, bound by the bytes of W.
//
// W in pieces of 16 rows x 128 channels as in stream.cuh. A block has neighbouring tiles of rows
// and walks through their pieces, its readers in turns: all tiles for the first part of the
// channels, then for the next one. One warp fills a ring with bulk copies, which start before the
// kernel's inputs are there. x lies in shared memory in the form that the pieces want: whole, or
// where that is too much one part after another. At the end of a tile's part each reader leaves its
// sums and goes on; one more warp adds them in the readers' order, the parts' sums in theirs: who
// sums what depends on N and K only.
//
// Two blocks a multiprocessor, and room beside them for those of the ops between the linears. Lost
// against that, in tokens a second of a whole model: one block of 16 readers with rings of 160 to
// 227 KB (1 to 8 %), room for the next linear's block (15 %), twice the loads of x at once and so
// 95 registers in the place of 64 (1 to 2 %), a reader's pieces by twos (1 %).
//
// A piece P has
//   kBytes
//   kPartPieces     of a row's part
//   kMostTokens     beyond which another kernel is faster
//   kBlockBytes     of shared memory for a block, of them kStaticBytes that it declares itself
//   x_bytes         of some pieces' channels of x in shared memory
//   prepare         what shared memory wants besides x; before the inputs are there
//   load_x          some pieces' channels of x into shared memory
//   Column          a lane's place in it; Tokens::load() what it needs of a piece
//   multiply        sums += the piece in shared memory times what load() gave
//   publish         a lane's sums to [T, 16 rows]
#pragma once

#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ring.cuh"
#include "kernels/cuda/tile.cuh"

namespace tandem {

template <typename P>
struct Few {
  const uint8_t* w;
  const uint16_t* x;  // [T, ldx]
  int ldx;            // a multiple of 32, zero beyond K
  float* y;
  int64_t ldy;
  int pieces;  // of a row
  int N, T;
  bool accumulate;
  int slots;  // of the ring, a piece for each reader
  int held;   // pieces whose channels of x are in shared memory at once
  typename P::Constants constants;
};

// From a linear's Stream or Lookup; ring and constants remain to be set.
template <typename P, typename Linear>
Few<P> few_of(const Linear& linear) {
  Few<P> p{};
  p.w = linear.w;
  p.x = linear.x;
  p.ldx = static_cast<int>(linear.ldx);
  p.y = linear.y;
  p.ldy = linear.ldy;
  p.pieces = linear.pieces;
  p.N = linear.N;
  p.T = linear.T;
  p.accumulate = linear.accumulate;
  return p;
}

constexpr int kFewBlocks = 2;   // on a multiprocessor
constexpr int kFewReaders = 8;  // warps
constexpr int kFewThreads = (kFewReaders + 2) * 32;
constexpr int kMostSlots = 12;
constexpr int kTilesBehind = 2;  // that the last reader may be behind the first

struct FewBarriers {
  uint64_t full[kMostSlots], empty[kMostSlots];
  uint64_t published[kTilesBehind], collected[kTilesBehind];

  __device__ __forceinline__ void init(int slots) {
    for (int i = 0; i < slots; ++i) {
      init_barrier(&full[i], 1);
      init_barrier(&empty[i], kFewReaders);
    }
    for (int i = 0; i < kTilesBehind; ++i) {
      init_barrier(&published[i], kFewReaders);
      init_barrier(&collected[i], 1);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
};

// A place in a ring of `count`.
struct FewCursor {
  int count, at = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void advance() {
    if (++at == count) at = 0, phase ^= 1;
  }
};

// Calls use(t, c, v) with the channels 8 c ... 8 c + 7 of token t, from piece `first` on and zero
// beyond K, for all of `count` pieces; the warps' lanes together, 16 lanes a piece, the last ones
// also with c beyond the pieces.
template <typename P, typename Use>
__device__ __forceinline__ void for_each_chunk(const Few<P>& p, int first, int count, Use use) {
  constexpr int kAhead = 4, kChunks = 16;  // of a piece
  const int chunks = count * kChunks, left = p.ldx / 8 - first * kChunks;
  const auto* x = reinterpret_cast<const uint4*>(p.x) + first * kChunks;
  struct Place {
    int t, c;
    __device__ __forceinline__ void advance(int all) {
      c += kFewReaders * 32;
      if (c - static_cast<int>(threadIdx.x % 32) >= all) c = threadIdx.x, ++t;
    }
  };
  Place place{0, static_cast<int>(threadIdx.x)};
  if (place.c - static_cast<int>(threadIdx.x % 32) >= chunks) return;
  while (place.t < p.T) {
    uint4 v[kAhead];
    Place ahead = place;
#pragma unroll
    for (int i = 0; i < kAhead; ++i, ahead.advance(chunks)) {
      const bool exists = ahead.t < p.T && ahead.c < left;
      v[i] = exists ? x[ahead.t * (p.ldx / 8) + ahead.c] : uint4{};
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i, place.advance(chunks)) {
      if (place.t < p.T) use(place.t, place.c, v[i]);
    }
  }
}

// By one thread: the pieces of the block's tiles, in the readers' order.
template <typename P>
__device__ __forceinline__ void fill_ring(const Few<P>& p, FewBarriers& barriers, uint8_t* ring,
                                          int first, int last) {
  FewCursor slot{p.slots};
  int part = 0, tile = first, piece = 0, count = min(P::kPartPieces, p.pieces);
  for (int left = (last - first) * p.pieces; left > 0; left -= kFewReaders, slot.advance()) {
    wait_barrier(&barriers.empty[slot.at], slot.phase ^ 1);
    uint8_t* to = ring + slot.at * kFewReaders * P::kBytes;
    int wanted = min(kFewReaders, left);
    expect_bytes(&barriers.full[slot.at], wanted * P::kBytes);
    while (wanted > 0) {
      const int run = min(wanted, count - piece);
      const int64_t index = static_cast<int64_t>(tile) * p.pieces + part + piece;
      bulk_copy(to, p.w + index * P::kBytes, run * P::kBytes, &barriers.full[slot.at]);
      to += run * P::kBytes;
      wanted -= run;
      piece += run;
      if (piece < count) continue;
      piece = 0;
      if (++tile < last) continue;
      tile = first;
      part += P::kPartPieces;
      count = min(P::kPartPieces, p.pieces - part);
    }
  }
}

// Adds what the readers published, in their order, and stores it. `totals` has [tiles of the block]
// [T, 16 rows] where there are several parts.
template <typename P>
__device__ __forceinline__ void collect(const Few<P>& p, FewBarriers& barriers, const float* sums,
                                        float* totals, int first, int last) {
  constexpr int kEach = P::kMostTokens * kTileRows / 32;  // of a lane
  const int lane = threadIdx.x % 32, count = p.T * kTileRows;
  FewCursor buffer{kTilesBehind};
  for (int part = 0; part < p.pieces; part += P::kPartPieces) {
    const bool is_last = part + P::kPartPieces >= p.pieces;
    for (int tile = first; tile < last; ++tile, buffer.advance()) {
      const float* of_tile = sums + buffer.at * kFewReaders * count;
      float* total = totals + (tile - first) * count;
      const int n = tile * kTileRows + lane % kTileRows;
      float* out = p.y + lane / kTileRows * p.ldy + n;
      float before[kEach] = {};
#pragma unroll
      for (int e = 0; e < kEach; ++e) {
        if (part > 0 && lane + 32 * e < count) before[e] = total[lane + 32 * e];
        if (is_last && p.accumulate && lane + 32 * e < count && n < p.N)
          before[e] += out[2 * e * p.ldy];
      }
      wait_barrier(&barriers.published[buffer.at], buffer.phase);
#pragma unroll
      for (int e = 0; e < kEach; ++e) {
        const int i = lane + 32 * e;
        if (i >= count) break;
        float sum = 0;
#pragma unroll
        for (int w = 0; w < kFewReaders; ++w) sum += of_tile[w * count + i];
        sum += before[e];
        if (!is_last) {
          total[i] = sum;
        } else if (n < p.N) {
          out[2 * e * p.ldy] = sum;
        }
      }
      __syncwarp();
      if (lane == 0) arrive(&barriers.collected[buffer.at]);
    }
  }
}

template <typename P>
__global__ void __launch_bounds__(kFewThreads, kFewBlocks) few_kernel(const Few<P> p) {
  extern __shared__ __align__(128) uint8_t ring[];
  __shared__ FewBarriers barriers;
  launch_dependents();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t tiles = (p.N + kTileRows - 1) / kTileRows;
  const int first = static_cast<int>(blockIdx.x * tiles / gridDim.x),
            last = static_cast<int>((blockIdx.x + 1) * tiles / gridDim.x);
  uint8_t* x = ring + p.slots * kFewReaders * P::kBytes;
  float* published = reinterpret_cast<float*>(x + P::x_bytes(p.T, p.held));
  constexpr int kFiller = kFewReaders;
  if (warp == kFiller) {
    if (lane == 0) barriers.init(p.slots);
    __syncwarp();
    asm volatile("bar.arrive 2, %0;" ::"n"(kFewThreads) : "memory");
    if (lane == 0) fill_ring(p, barriers, ring, first, last);
    wait_for_inputs();
    return;
  }
  P::prepare(p.constants);
  wait_for_inputs();
  if (warp < kFewReaders) P::load_x(p, 0, p.held, x);
  asm volatile("bar.sync 2, %0;" ::"n"(kFewThreads) : "memory");
  if (warp > kFiller) {
    float* totals = published + kTilesBehind * kFewReaders * p.T * kTileRows;
    return collect(p, barriers, published, totals, first, last);
  }
  const typename P::Column column(p, x, lane);
  FewCursor slot{p.slots}, buffer{kTilesBehind};
  const uint8_t* mine = ring + warp * P::kBytes;
  int piece = warp;
  for (int part = 0; part < p.pieces; part += P::kPartPieces) {
    const int count = min(P::kPartPieces, p.pieces - part);
    const int held_from = p.held == p.pieces ? 0 : part;
    if (held_from > 0) {
      asm volatile("bar.sync 1, %0;" ::"n"(kFewReaders * 32) : "memory");
      P::load_x(p, part, count, x);
      asm volatile("bar.sync 1, %0;" ::"n"(kFewReaders * 32) : "memory");
    }
    for (int tile = first; tile < last; ++tile) {
      typename P::Sums sums{};
      for (; piece < count; piece += kFewReaders, slot.advance()) {
        typename P::Tokens tokens;
        tokens.load(column, part - held_from + piece);
        wait_barrier(&barriers.full[slot.at], slot.phase);
        P::multiply(mine + slot.at * kFewReaders * P::kBytes, lane, tokens, column, sums);
        __syncwarp();
        if (lane == 0) arrive(&barriers.empty[slot.at]);
      }
      piece -= count;
      wait_barrier(&barriers.collected[buffer.at], buffer.phase ^ 1);
      P::publish(sums, published + (buffer.at * kFewReaders + warp) * p.T * kTileRows, p.T, lane);
      __syncwarp();
      if (lane == 0) arrive(&barriers.published[buffer.at]);
      buffer.advance();
    }
  }
}

template <typename P>
void run_few(const Context& context, Few<P> p) {
  constexpr int64_t kBarrierBytes = (sizeof(FewBarriers) + 127) / 128 * 128;
  constexpr int64_t kDynamicBytes = P::kBlockBytes - kBarrierBytes - P::kStaticBytes;
  constexpr int64_t kSlotBytes = int64_t{kFewReaders} * P::kBytes;
  const unsigned tiles = blocks_for(p.N, kTileRows);
  const unsigned blocks =
      std::min(tiles, kFewBlocks * static_cast<unsigned>(cuda_device(context).multiprocessors()));
  const int64_t most_tiles = blocks_for(tiles, blocks), sums = int64_t{p.T} * kTileRows * 4;
  const int64_t sums_bytes =
      kTilesBehind * kFewReaders * sums + (p.pieces > P::kPartPieces ? most_tiles * sums : 0);
  const int64_t wanted =
      std::min<int64_t>(kMostSlots, blocks_for(most_tiles * p.pieces, kFewReaders));
  const auto fits = [&](int held, int64_t fewest) {
    const int64_t left = kDynamicBytes - sums_bytes - P::x_bytes(p.T, held);
    p.held = held;
    p.slots = static_cast<int>(std::min(wanted, left / kSlotBytes));
    return p.slots >= std::min(wanted, fewest);
  };
  const bool has_room = fits(p.pieces, 3) || fits(std::min(p.pieces, P::kPartPieces), 2);
  const int64_t N = p.N, pieces = p.pieces;
  CUDA_DOOR(has_room, N, pieces);
  static const cudaError_t allowed = cudaFuncSetAttribute(
      few_kernel<P>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kDynamicBytes));
  CUDA_CHECK(allowed);
  launch(context, few_kernel<P>, dim3(blocks), dim3(kFewThreads),
         static_cast<size_t>(sums_bytes + P::x_bytes(p.T, p.held) + p.slots * kSlotBytes), p);
}

}  // namespace tandem
