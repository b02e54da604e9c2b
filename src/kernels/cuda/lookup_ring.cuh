// nf4 and fp4 for 5 to 64 tokens. A byte becomes a pair of bf16 in one look-up: a table of all 256
// pairs lies in shared memory once for each bank, so that no two lanes meet. Four mma sum 64
// channels in f32, and absmax scales the sum: a weight is rounded once, from its table's number to
// bf16, by 2^-9 at most. Weights come through a ring; splits and orders of sums are those of
// linear_rows.cu. The look-ups take two thirds of what shared memory gives.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/lookup_piece.cuh"
#include "kernels/cuda/ring.cuh"
#include "kernels/cuda/warp.cuh"

namespace tandem {

constexpr int kLookupReaders = 8;  // warps
constexpr int kLookupStages = 4;
constexpr int kLookupStagePieces = 2 * kLookupReaders;
constexpr int kLookupStageBytes = kLookupStagePieces * LookupPiece::kBytes;
constexpr int kPairs = 256;

static_assert(2 * (kLookupStages * kLookupStageBytes + kPairs * 128 + 6144) <= 227 * 1024,
              "two blocks share a multiprocessor");

// table[byte][lane] = the two numbers of the byte, its first channel in the low half.
__device__ __forceinline__ void fill_table(uint32_t* table, const float* values) {
  if (threadIdx.x >= kPairs) return;
  const __nv_bfloat162 pair =
      __floats2bfloat162_rn(values[threadIdx.x / 16], values[threadIdx.x % 16]);
  for (unsigned i = 0; i < 32; ++i) {
    table[threadIdx.x * 32 + (threadIdx.x + i) % 32] = *reinterpret_cast<const uint32_t*>(&pair);
  }
}

// The pair of byte kByte of a word; `mine` is the lane's column of the table, in bytes.
template <int kByte>
__device__ __forceinline__ uint32_t pair_of(const uint32_t* table, uint32_t codes, uint32_t mine) {
  const uint32_t row = (kByte == 0 ? codes << 7 : codes >> (8 * kByte - 7)) & 0x7F80;
  return *reinterpret_cast<const uint32_t*>(reinterpret_cast<const char*>(table) + (row | mine));
}

// 64 channels of rows r and r + 8 as the A fragments of four mma; pair(byte's number, word) looks
// up.
template <typename Pair>
__device__ __forceinline__ void load_group(const uint2& a, const uint2& c, Pair pair,
                                           uint32_t (&fragments)[4][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t upper = half == 0 ? a.x : a.y, lower = half == 0 ? c.x : c.y;
    auto& first = fragments[2 * half];
    auto& second = fragments[2 * half + 1];
    const std::integral_constant<int, 0> k0;
    const std::integral_constant<int, 1> k1;
    const std::integral_constant<int, 2> k2;
    const std::integral_constant<int, 3> k3;
    first[0] = pair(k0, upper), first[1] = pair(k0, lower);
    first[2] = pair(k1, upper), first[3] = pair(k1, lower);
    second[0] = pair(k2, upper), second[1] = pair(k2, lower);
    second[2] = pair(k3, upper), second[3] = pair(k3, lower);
  }
}

// A token's 16 channels of each group of a piece; zero beyond K.
template <int kTiles>
struct LookupTokens {
  uint4 x[kTiles][LookupPiece::kGroups][2];
  __device__ __forceinline__ void load(const Lookup& p, const uint16_t* const (&from)[kTiles],
                                       int piece) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int g = 0; g < LookupPiece::kGroups; ++g) {
        const int k = piece * kPieceChannels + g * LookupPiece::kGroup;
        const auto* at = reinterpret_cast<const uint4*>(from[j] + k);
        x[j][g][0] = k < p.K ? at[0] : uint4{};
        x[j][g][1] = k < p.K ? at[1] : uint4{};
      }
    }
  }
};

// The pieces of a block's tiles, kLookupStagePieces at a time.
struct LookupRun {
  int tile, piece, stride, tiles, pieces;
  __device__ __forceinline__ bool done() const { return tile >= tiles; }
  __device__ __forceinline__ int count() const { return min(kLookupStagePieces, pieces - piece); }
  __device__ __forceinline__ void advance() {
    piece += kLookupStagePieces;
    if (piece >= pieces) piece = 0, tile += stride;
  }
};

// By one thread.
__device__ __forceinline__ void fill_lookup_ring(const uint8_t* w, Ring<kLookupStages>& ring,
                                                 uint8_t* stages, LookupRun now) {
  const auto address = [&](const LookupRun& run) {
    return w + (static_cast<int64_t>(run.tile) * run.pieces + run.piece) * LookupPiece::kBytes;
  };
  RingCursor<kLookupStages> at;
  for (; !now.done(); now.advance()) {
    wait_barrier(&ring.empty[at.stage], at.phase ^ 1);
    const uint32_t bytes = now.count() * LookupPiece::kBytes;
    expect_bytes(&ring.full[at.stage], bytes);
    bulk_copy(stages + at.stage * kLookupStageBytes, address(now), bytes, &ring.full[at.stage]);
    at.advance();
  }
}

// A block has the tiles blockIdx.x, + gridDim.x ...
template <int kTiles>
__global__ void __launch_bounds__((kLookupReaders + 1) * 32, kTiles == 1 ? 2 : 1)
    lookup_kernel(const Lookup p, int tiles) {
  extern __shared__ __align__(128) uint8_t stages[];
  __shared__ uint32_t table[kPairs * 32];
  __shared__ Ring<kLookupStages> ring;
  __shared__ float shared[kLookupReaders * kTileTokens8 * kTileRows];
  launch_dependents();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, q = lane % 4;
  fill_table(table, p.values);
  ring.init(kLookupReaders);
  LookupRun now{static_cast<int>(blockIdx.x), 0, static_cast<int>(gridDim.x), tiles, p.pieces};
  if (warp == kLookupReaders) {
    if (lane == 0) fill_lookup_ring(p.w, ring, stages, now);
    wait_for_inputs();
    return;
  }
  wait_for_inputs();
  const uint16_t* x[kTiles];
#pragma unroll
  for (int j = 0; j < kTiles; ++j) x[j] = p.x + min(j * 8 + r, p.T - 1) * p.ldx + q * 16;
  RingCursor<kLookupStages> at;
  float sums[kTiles][4] = {};
  // Those of the warp's next piece are on their way while one is at work, if there are registers.
  constexpr bool kFewTokens = kTiles == 1;
  LookupTokens<kTiles> next;
  if (kFewTokens) next.load(p, x, warp);
  while (!now.done()) {
    const int n0 = now.tile * kTileRows, count = now.count(), first = now.piece;
    now.advance();
    wait_barrier(&ring.full[at.stage], at.phase);
#pragma unroll
    for (int i = 0; i < kLookupStagePieces / kLookupReaders; ++i) {
      const int piece = warp + i * kLookupReaders;
      if (piece >= count) {
        if (kFewTokens && i == 0) next.load(p, x, now.piece + warp);
        break;
      }
      LookupTokens<kTiles> tokens;
      if constexpr (kFewTokens) {
        tokens = next;
        next.load(
            p, x,
            piece + kLookupReaders < count ? first + piece + kLookupReaders : now.piece + warp);
      } else {
        tokens.load(p, x, first + piece);
      }
      const uint8_t* from = stages + at.stage * kLookupStageBytes + piece * LookupPiece::kBytes;
      const uint4 a = reinterpret_cast<const uint4*>(from)[lane];
      const uint4 c = reinterpret_cast<const uint4*>(from)[lane + 32];
      const auto* absmax = reinterpret_cast<const float*>(from + LookupPiece::kAbsmaxAt);
      const float2 upper = *reinterpret_cast<const float2*>(absmax + r * LookupPiece::kGroups);
      const float2 lower =
          *reinterpret_cast<const float2*>(absmax + (r + 8) * LookupPiece::kGroups);
#pragma unroll
      for (int g = 0; g < LookupPiece::kGroups; ++g) {
        uint32_t rows[4][4];
        const auto pair = [&](auto byte, uint32_t codes) {
          return pair_of<byte()>(table, codes, lane * 4);
        };
        load_group(g == 0 ? uint2{a.x, a.y} : uint2{a.z, a.w},
                   g == 0 ? uint2{c.x, c.y} : uint2{c.z, c.w}, pair, rows);
        const float scale = g == 0 ? upper.x : upper.y, scale8 = g == 0 ? lower.x : lower.y;
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          float part[4] = {};
#pragma unroll
          for (int s = 0; s < 4; ++s) {
            const uint4& b = tokens.x[j][g][s / 2];
            MmaBf16::run(part, rows[s][0], rows[s][1], rows[s][2], rows[s][3], word(b, s % 2 * 2),
                         word(b, s % 2 * 2 + 1));
          }
          sums[j][0] += part[0] * scale, sums[j][1] += part[1] * scale;
          sums[j][2] += part[2] * scale8, sums[j][3] += part[3] * scale8;
        }
      }
    }
    __syncwarp();
    if (lane == 0) arrive(&ring.empty[at.stage]);
    at.advance();
    if (now.piece != 0) continue;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      if (j * 8 < p.T) {
        sum_tile(sums[j], shared, kLookupReaders, [&](int t, int n, float sum) {
          if (j * 8 + t >= p.T || n0 + n >= p.N) return;
          float* out = p.y + (j * 8 + t) * p.ldy + n0 + n;
          *out = p.accumulate ? *out + sum : sum;
        });
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[j][i] = 0;
    }
  }
}

template <int kTiles>
void launch_lookup_tiles(const Context& context, const Lookup& p) {
  constexpr int kBytes = kLookupStages * kLookupStageBytes;
  static const cudaError_t allowed = cudaFuncSetAttribute(
      lookup_kernel<kTiles>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  CUDA_CHECK(allowed);
  const int tiles = (p.N + kTileRows - 1) / kTileRows;
  launch(
      context, lookup_kernel<kTiles>,
      dim3(balanced_blocks(tiles, (kTiles == 1 ? 2 : 1) * cuda_device(context).multiprocessors())),
      dim3((kLookupReaders + 1) * 32), kBytes, p, tiles);
}

// In passes of 32 tokens.
inline void run_lookup_ring(const Context& context, Lookup p) {
  constexpr int kMostTokens = 32;
  for (int left = p.T; left > 0; left -= kMostTokens) {
    p.T = std::min(kMostTokens, left);
    if (p.T <= 8) {
      launch_lookup_tiles<1>(context, p);
    } else if (p.T <= 16) {
      launch_lookup_tiles<2>(context, p);
    } else {
      launch_lookup_tiles<4>(context, p);
    }
    p.x += kMostTokens * p.ldx;
    p.y += kMostTokens * p.ldy;
  }
}

}  // namespace tandem
