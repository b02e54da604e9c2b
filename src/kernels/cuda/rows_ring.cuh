// The products of linear_rows.cu for few tokens: weights come through a ring in shared memory.
//
// A block has the tiles blockIdx.x, + gridDim.x ... of 16 rows. One warp issues the copies, eight
// multiply: warp w takes the pieces w, w + 8 ... of 64 bytes a row. A token's bytes are loaded a
// stage ahead of the weights that they meet. Columns of the mma beyond the last token are zeros:
// another copy of a token would cost more power.
//
// Lost (us of an 8B bf16 layer, of 116): rings that leave room for a third block on a
// multiprocessor (141; the next linear's blocks come to where this one's still are, and are spread
// unevenly), one block with twice the ring (131; a stage's 16 copies take their warp 0.6 us),
// segments of 512 bytes (133), the norm before the product made in each block (117).
#pragma once

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_rows.cuh"
#include "kernels/cuda/product.cuh"
#include "kernels/cuda/stream.cuh"

namespace tandem {

constexpr int kPieceBytes = 64;                         // of a row, for one warp-wide load
constexpr int kRingSegment = 1024;                      // bytes of a row in a stage
constexpr int kRingPitch = kRingSegment + kPieceBytes;  // rows begin in different banks
constexpr int kRingReaders = 8;                         // warps
constexpr int kRingStageBytes = kTileRows * kRingPitch;
constexpr int kReaderThreads = kRingReaders * 32;
constexpr int kRingStages = 6;
constexpr int kRingBlocks = 2;  // on a multiprocessor

// Token t's channels that meet the lane's 16 bytes at `byte` of a row. Beyond a token's row lies
// the next one's: the weights there are zero, but infinity times zero is not.
template <typename Product>
__device__ __forceinline__ void load_token(const Rows& p, const uint8_t* x, int byte, int q,
                                           uint4 (&out)[Product::kLoads], bool is_token = true) {
  const bool inside = is_token && (byte + q * 16) * Product::kLoads < p.x_pieces_bytes;
#pragma unroll
  for (int l = 0; l < Product::kLoads; ++l) {
    out[l] = inside ? reinterpret_cast<const uint4*>(x + byte * Product::kLoads)[l] : uint4{};
  }
}

template <typename Product>
__device__ __forceinline__ const uint8_t* token_row(const Rows& p, int t, int q) {
  return p.x + min(t, p.T - 1) * p.ldx + q * 16 * Product::kLoads;
}

template <typename Sum>
__device__ __forceinline__ float scaled_sum(const Rows& p, Sum sum, int t, int n) {
  const float value = static_cast<float>(sum);
  if (p.row_scales == nullptr) return value;
  return value *
         (p.token_scales != nullptr ? p.row_scales[n] * p.token_scales[t] : p.row_scales[n]);
}

// The block's sums of rows n0 ... and tokens t0 ... into y.
template <typename Sum>
__device__ __forceinline__ void store_tile(const Rows& p, const Sum (&sums)[4], Sum* shared,
                                           int warps, int n0, int t0) {
  if (t0 >= p.T) return;
  sum_tile(sums, shared, warps, [&](int t, int n, Sum sum) {
    if (t0 + t >= p.T || n0 + n >= p.N) return;
    const float value = scaled_sum(p, sum, t0 + t, n0 + n);
    float* out = p.y + (t0 + t) * p.ldy + n0 + n;
    *out = p.accumulate ? *out + value : value;
  });
}

// The warp that brings the weights of the block's tiles. They are read once: the first to leave L2.
__device__ __forceinline__ void fill_ring(const Rows& p, int tiles, uint8_t* stages,
                                          Ring<kRingStages>& ring) {
  const int lane = threadIdx.x % 32, row_bytes = p.pieces * kPieceBytes;
  const uint64_t policy = evict_first();
  RingCursor<kRingStages> at;
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t n = min(tile * kTileRows + lane, p.N - 1);
    for (int first = 0; first < row_bytes; first += kRingSegment) {
      wait_barrier(&ring.empty[at.stage], at.phase ^ 1);
      const int bytes = min(kRingSegment, row_bytes - first);
      if (lane == 0) expect_bytes(&ring.full[at.stage], bytes * kTileRows);
      __syncwarp();
      if (lane < kTileRows) {
        bulk_copy_once(stages + at.stage * kRingStageBytes + lane * kRingPitch,
                       p.w + n * p.ldw + first, bytes, &ring.full[at.stage], policy);
      }
      at.advance();
    }
  }
}

// What a warp has of kTiles times eight tokens for one stage.
template <typename Product, int kTiles>
struct TokenPieces {
  static constexpr int kPieces = kRingSegment / kPieceBytes / kRingReaders;
  uint4 words[kPieces][kTiles][Product::kLoads];

  __device__ __forceinline__ void load(const Rows& p, int first) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, q = lane % 4;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int byte = first + (warp + i * kRingReaders) * kPieceBytes;
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        const int t = j * kTileTokens8 + r;
        load_token<Product>(p, token_row<Product>(p, t, q), byte, q, words[i][j], t < p.T);
      }
    }
  }
};

// A warp's share of a stage, of which `bytes` of each row are weights.
template <typename Product, int kTiles>
__device__ __forceinline__ void multiply_stage(const uint8_t* stage, int bytes,
                                               const TokenPieces<Product, kTiles>& tokens,
                                               typename Product::Mma::Sum (&sums)[kTiles][4]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, q = lane % 4;
#pragma unroll
  for (int i = 0; i < TokenPieces<Product, kTiles>::kPieces; ++i) {
    const int byte = (warp + i * kRingReaders) * kPieceBytes;
    if (byte >= bytes) break;
    const uint8_t* from = stage + r * kRingPitch + byte + q * 16;
    uint32_t rows[Product::kSteps][4];
    Product::rows(*reinterpret_cast<const uint4*>(from),
                  *reinterpret_cast<const uint4*>(from + 8 * kRingPitch), rows);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      uint32_t columns[Product::kSteps][2];
      Product::tokens(tokens.words[i][j], columns);
#pragma unroll
      for (int s = 0; s < Product::kSteps; ++s) {
        Product::Mma::run(sums[j], rows[s][0], rows[s][1], rows[s][2], rows[s][3], columns[s][0],
                          columns[s][1]);
      }
    }
  }
}

template <typename Product, int kTiles>
__global__ void __launch_bounds__(kReaderThreads + 32) rows_ring_kernel(const Rows p, int tiles) {
  using Sum = typename Product::Mma::Sum;
  using Tokens = TokenPieces<Product, kTiles>;
  extern __shared__ __align__(128) uint8_t stages[];
  __shared__ Ring<kRingStages> ring;
  __shared__ Sum shared[kRingReaders * kTileTokens8 * kTileRows];
  launch_dependents();
  ring.init(kRingReaders);
  if (threadIdx.x >= kReaderThreads) {
    fill_ring(p, tiles, stages, ring);
    wait_for_inputs();
    return;
  }
  wait_for_inputs();
  const int row_bytes = p.pieces * kPieceBytes;
  RingCursor<kRingStages> at;
  int tile = blockIdx.x, first = 0;
  Sum sums[kTiles][4] = {};
  const auto multiply = [&](const Tokens& tokens, Tokens& next) {
    const int left = row_bytes - first;
    first = left > kRingSegment ? first + kRingSegment : 0;
    next.load(p, first);
    wait_barrier(&ring.full[at.stage], at.phase);
    multiply_stage(stages + at.stage * kRingStageBytes, left, tokens, sums);
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive(&ring.empty[at.stage]);
    at.advance();
    if (first != 0) return;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      store_tile(p, sums[j], shared, kRingReaders, tile * kTileRows, j * kTileTokens8);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[j][i] = 0;
    }
    tile += gridDim.x;
  };
  Tokens tokens, next;  // in turns: a copy would wait for the loads
  tokens.load(p, 0);
  while (tile < tiles) {
    multiply(tokens, next);
    if (tile < tiles) multiply(next, tokens);
  }
}

template <typename Product, int kTiles>
void launch_ring(const Context& context, const Rows& p) {
  constexpr int kBytes = kRingStages * kRingStageBytes;
  static_assert(kRingBlocks * (kBytes + 7 * 1024) <= 227 * 1024);
  static const cudaError_t allowed = cudaFuncSetAttribute(
      rows_ring_kernel<Product, kTiles>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  CUDA_CHECK(allowed);
  const int tiles = (p.N + kTileRows - 1) / kTileRows;
  launch(context, rows_ring_kernel<Product, kTiles>,
         dim3(balanced_blocks(tiles, kRingBlocks * cuda_device(context).multiprocessors())),
         dim3(kReaderThreads + 32), kBytes, p, tiles);
}

}  // namespace tandem
