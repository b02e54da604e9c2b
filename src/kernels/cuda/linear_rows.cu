// y[T, N] = x[T, K] . W[N, K]^T for weights that stay row-major: bf16, f16, and bytes with one scale
// a row, int8 or E4M3.
//
// W  [N, ld bytes], ld the row's bytes rounded up to 64 and zero beyond K; x [T, K_padded] of the
// same type (int8 and E4M3: with one scale a token; E4M3 also meets bf16); y f32. cuBLASLt reads the
// same copy for many tokens.
//
// A block owns tiles of 16 or 32 rows, one at a time. Its warps share K: warp w takes the pieces w,
// w + W ... of 64 bytes a row. A lane has 16 bytes of row r and of row r + 8, which are the A
// fragments of two mma, and 16 bytes of a token, the B fragments: 16-bit numbers and int8 go from
// memory to the tensor cores without one instruction of arithmetic. E4M3 has no mma of its own below
// wgmma; it becomes f16, or bf16 where it meets bf16, which hold all its numbers. The warps' sums
// meet in shared memory in a fixed order, and the split depends on K only: a token's result does not
// depend on the tokens beside it. Bound by N ld bytes.
//
// A multiprocessor holds one block and has room for the next linear's: its ring fills while this one
// ends and the ops between run.
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_rows.cuh"
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/product.cuh"
#include "kernels/cuda/ring.cuh"
#include "kernels/cuda/tile.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/rows.h"

namespace tandem {
namespace {

constexpr int kPieceBytes = 64;  // of a row, for one warp-wide load
constexpr int kRows = kTileRows;
constexpr int kMaxTiles = 8;           // of 8 tokens, for one pass over the weights
constexpr int64_t kCublasTokens = 17;  // from here on cuBLASLt is faster ...
constexpr int64_t kDecodedTokens = 65;  // ... and from here on where it needs decoded weights

// The block's sums of rows n0 ... and tokens t0 ... into y.
template <typename Sum>
__device__ __forceinline__ void store_tile(const Rows& p, const Sum (&sums)[4], Sum* shared,
                                           int warps, int n0, int t0) {
  if (t0 >= p.T) return;
  sum_tile(sums, shared, warps, [&](int t, int n, Sum sum) {
    if (t0 + t >= p.T || n0 + n >= p.N) return;
    float value = static_cast<float>(sum);
    if (p.row_scales != nullptr) {
      value *= p.token_scales != nullptr ? p.row_scales[n0 + n] * p.token_scales[t0 + t]
                                         : p.row_scales[n0 + n];
    }
    float* out = p.y + (t0 + t) * p.ldy + n0 + n;
    *out = p.accumulate ? *out + value : value;
  });
}

// Token t's channels that meet the lane's 16 bytes at `byte` of a row. Beyond a token's row lies the
// next one's: the weights there are zero, but infinity times zero is not.
template <typename Product>
__device__ __forceinline__ void load_token(const Rows& p, const uint8_t* x, int byte, int q,
                                           uint4 (&out)[Product::kLoads]) {
  const bool inside = (byte + q * 16) * Product::kLoads < p.x_pieces_bytes;
#pragma unroll
  for (int l = 0; l < Product::kLoads; ++l) {
    out[l] = inside ? reinterpret_cast<const uint4*>(x + byte * Product::kLoads)[l] : uint4{};
  }
}

template <typename Product>
__device__ __forceinline__ const uint8_t* token_row(const Rows& p, int t, int q) {
  return p.x + min(t, p.T - 1) * p.ldx + q * 16 * Product::kLoads;
}

template <int kUnroll>
__device__ __forceinline__ void load_pieces(uint4 (&a)[kUnroll][2], const uint8_t* row0,
                                            const uint8_t* row1, int piece, int stride,
                                            int pieces) {
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int p = piece + u * stride;
    if (p < pieces) {
      a[u][0] = load_stream(row0 + p * kPieceBytes);
      a[u][1] = load_stream(row1 + p * kPieceBytes);
    } else {
      a[u][0] = a[u][1] = uint4{};
    }
  }
}

template <typename Product, int kTiles, int kUnroll>
__global__ void __launch_bounds__(256) rows_kernel(const Rows p) {
  using Mma = typename Product::Mma;
  using Sum = typename Mma::Sum;
  extern __shared__ char shared_bytes[];
  Sum* shared = reinterpret_cast<Sum*>(shared_bytes);  // see sum_tile
  launch_dependents();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int r = lane / 4, q = lane % 4;
  const int n0 = blockIdx.x * kRows, t0 = blockIdx.y * kTiles * 8;
  const uint8_t* row0 = p.w + min(n0 + r, p.N - 1) * p.ldw + q * 16;
  const uint8_t* row1 = p.w + min(n0 + r + 8, p.N - 1) * p.ldw + q * 16;

  uint4 next[kUnroll][2];
  load_pieces(next, row0, row1, warp, warps, p.pieces);
  wait_for_inputs();

  const uint8_t* x[kTiles];
#pragma unroll
  for (int j = 0; j < kTiles; ++j) x[j] = token_row<Product>(p, t0 + j * 8 + r, q);
  Sum sums[kTiles][4] = {};
  for (int piece = warp; piece < p.pieces; piece += warps * kUnroll) {
    uint4 a[kUnroll][2];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) a[u][0] = next[u][0], a[u][1] = next[u][1];
    load_pieces(next, row0, row1, piece + warps * kUnroll, warps, p.pieces);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      uint32_t rows[Product::kSteps][4];
      Product::rows(a[u][0], a[u][1], rows);
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        uint4 loaded[Product::kLoads];
        load_token<Product>(p, x[j], (piece + u * warps) * kPieceBytes, q, loaded);
        uint32_t tokens[Product::kSteps][2];
        Product::tokens(loaded, tokens);
#pragma unroll
        for (int s = 0; s < Product::kSteps; ++s) {
          Mma::run(sums[j], rows[s][0], rows[s][1], rows[s][2], rows[s][3], tokens[s][0],
                   tokens[s][1]);
        }
      }
    }
  }

#pragma unroll
  for (int j = 0; j < kTiles; ++j) store_tile(p, sums[j], shared, warps, n0, t0 + j * 8);
}

constexpr int kReaders = 8;  // warps
constexpr int kFillers = 4;  // warps
constexpr int kAhead = 8;    // segments that are asked for once the ring is full for the first time

// The stages of a ring for tiles of kTall times 16 rows.
template <int kTall>
struct Stage {
  static constexpr int kCount = kTall == 1 ? 6 : 5;
  static constexpr int kSegment = 1024 / kTall;             // bytes of a row
  static constexpr int kPitch = kSegment + kPieceBytes;     // rows begin in different banks
  static constexpr int kBytes = kTall * kRows * kPitch;
  static constexpr int kPieces = kSegment / kPieceBytes / kReaders;  // of a row, for a warp
  static_assert(2 * (kCount * kBytes + 6144) <= 227 * 1024, "the next linear's block has room");
};

// A block's way through its tiles, a segment of all the tile's rows at a time.
struct Segments {
  int tile, first, stride, tiles, row_bytes;
  __device__ __forceinline__ bool done() const { return tile >= tiles; }
  __device__ __forceinline__ void advance(int segment) {
    first += segment;
    if (first >= row_bytes) first = 0, tile += stride;
  }
};

// Copies the block's tiles into the ring, one lane a row. Copies of a warp are issued one after
// another, so kFillers warps take turns at the segments. What follows the ring's first filling is
// asked for too: a block that waits for its inputs leaves memory no rest.
template <int kTall>
__device__ __forceinline__ void fill_ring(const Rows& p, Ring<Stage<kTall>::kCount>& ring,
                                          uint8_t* stages, Segments now, int filler, int lane) {
  using S = Stage<kTall>;
  const auto address = [&](const Segments& s) {
    const int n = min(s.tile * kTall * kRows + lane, p.N - 1);
    return p.w + static_cast<int64_t>(n) * p.ldw + s.first;
  };
  const bool has_row = lane < kTall * kRows;
  RingCursor<S::kCount> at;
  for (int i = 0; i < filler; ++i) now.advance(S::kSegment), at.advance();
  Segments ahead = now;
  for (bool is_first = true; !now.done(); is_first = false) {
    wait_barrier(&ring.empty[at.stage], at.phase ^ 1);
    const int bytes = min(S::kSegment, now.row_bytes - now.first);
    if (lane == 0) expect_bytes(&ring.full[at.stage], bytes * kTall * kRows);
    __syncwarp();
    if (has_row) {
      bulk_copy(stages + at.stage * S::kBytes + lane * S::kPitch, address(now), bytes,
                &ring.full[at.stage]);
    }
    for (int i = 0; i < kFillers; ++i) now.advance(S::kSegment), at.advance();
    if (!is_first || filler != kFillers - 1) continue;
    for (int i = filler; i < S::kCount; ++i) ahead.advance(S::kSegment);
    for (int i = 0; i < kAhead && !ahead.done(); ++i, ahead.advance(S::kSegment)) {
      if (has_row) bulk_prefetch(address(ahead), min(S::kSegment, ahead.row_bytes - ahead.first));
    }
  }
}

// The same sums for few tokens, weights through a ring. A block has the tiles blockIdx.x, +
// gridDim.x ...
template <typename Product, int kTiles, int kTall>
__global__ void __launch_bounds__((kReaders + kFillers) * 32, 2)
    rows_ring_kernel(const Rows p, int tiles) {
  using S = Stage<kTall>;
  using Mma = typename Product::Mma;
  using Sum = typename Mma::Sum;
  extern __shared__ __align__(128) uint8_t stages[];
  __shared__ Ring<S::kCount> ring;
  __shared__ Sum shared[kReaders * kTileTokens8 * kTileRows];
  launch_dependents();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, q = lane % 4;
  Segments now{static_cast<int>(blockIdx.x), 0, static_cast<int>(gridDim.x), tiles,
               p.pieces * kPieceBytes};
  ring.init(kReaders);
  if (warp >= kReaders) {
    fill_ring<kTall>(p, ring, stages, now, warp - kReaders, lane);
    wait_for_inputs();
    return;
  }
  wait_for_inputs();
  const uint8_t* x[kTiles];
#pragma unroll
  for (int j = 0; j < kTiles; ++j) x[j] = token_row<Product>(p, j * 8 + r, q);
  uint4 next[S::kPieces][kTiles][Product::kLoads];
  const auto load_tokens = [&](int first) {
#pragma unroll
    for (int i = 0; i < S::kPieces; ++i) {
#pragma unroll
      for (int j = 0; j < kTiles; ++j)
        load_token<Product>(p, x[j], first + (warp + i * kReaders) * kPieceBytes, q, next[i][j]);
    }
  };
  load_tokens(0);
  RingCursor<S::kCount> at;
  Sum sums[kTiles][kTall][4] = {};
  while (!now.done()) {
    uint32_t tokens[S::kPieces][kTiles][Product::kSteps][2];
#pragma unroll
    for (int i = 0; i < S::kPieces; ++i) {
#pragma unroll
      for (int j = 0; j < kTiles; ++j) Product::tokens(next[i][j], tokens[i][j]);
    }
    const int row_begin = now.tile * kTall * kRows, left = now.row_bytes - now.first;
    now.advance(S::kSegment);
    load_tokens(now.first);
    wait_barrier(&ring.full[at.stage], at.phase);
#pragma unroll
    for (int i = 0; i < S::kPieces; ++i) {
      const int byte = (warp + i * kReaders) * kPieceBytes;
      if (byte >= left) break;
      const uint8_t* from = stages + at.stage * S::kBytes + r * S::kPitch + byte + q * 16;
#pragma unroll
      for (int tall = 0; tall < kTall; ++tall, from += kRows * S::kPitch) {
        uint32_t rows[Product::kSteps][4];
        Product::rows(*reinterpret_cast<const uint4*>(from),
                      *reinterpret_cast<const uint4*>(from + 8 * S::kPitch), rows);
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
#pragma unroll
          for (int s = 0; s < Product::kSteps; ++s) {
            Mma::run(sums[j][tall], rows[s][0], rows[s][1], rows[s][2], rows[s][3],
                     tokens[i][j][s][0], tokens[i][j][s][1]);
          }
        }
      }
    }
    __syncwarp();
    if (lane == 0) arrive(&ring.empty[at.stage]);
    at.advance();
    if (now.first != 0) continue;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int tall = 0; tall < kTall; ++tall) {
        store_tile(p, sums[j][tall], shared, kReaders, row_begin + tall * kRows, j * 8);
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[j][tall][i] = 0;
      }
    }
  }
}

template <typename Product, int kTiles, int kTall>
void launch_ring(const Context& context, const Rows& p) {
  constexpr int kBytes = Stage<kTall>::kCount * Stage<kTall>::kBytes;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(rows_ring_kernel<Product, kTiles, kTall>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  CUDA_CHECK(allowed);
  const int tiles = (p.N + kTall * kRows - 1) / (kTall * kRows);
  launch(context, rows_ring_kernel<Product, kTiles, kTall>,
         dim3(balanced_blocks(tiles, cuda_device(context).multiprocessors())),
         dim3((kReaders + kFillers) * 32), kBytes, p, tiles);
}

// Taller tiles read the tokens half as often, where there are enough of them for the multiprocessors.
template <typename Product, int kTiles>
void launch_ring(const Context& context, const Rows& p) {
  const unsigned slots = static_cast<unsigned>(cuda_device(context).multiprocessors());
  const unsigned blocks = balanced_blocks(blocks_for(p.N, 2 * kRows), slots);
  if (p.T > 2 && blocks * 10 >= slots * 7) return launch_ring<Product, kTiles, 2>(context, p);
  launch_ring<Product, kTiles, 1>(context, p);
}

template <typename Product, int kTiles, int kUnroll>
void launch_rows(const Context& context, const Rows& p) {
  // At least 4 pieces a warp, so that a lane has 8 loads under way.
  const int warps = std::clamp(p.pieces / 4, 1, 8);
  launch(context, rows_kernel<Product, kTiles, kUnroll>,
         dim3(blocks_for(p.N, kRows), blocks_for(p.T, kTiles * 8)),
         dim3(static_cast<unsigned>(warps * 32)), tile_bytes(warps), p);
}

template <typename Product>
void launch_rows(const Context& context, const Rows& p) {
  if (p.T <= 8) {
    launch_ring<Product, 1>(context, p);
  } else if (p.T <= 16) {
    launch_ring<Product, 2>(context, p);
  } else if (p.T <= 32) {
    launch_rows<Product, 4, 2>(context, p);
  } else {
    launch_rows<Product, kMaxTiles, 1>(context, p);
  }
}

// The layout: the rows, then their scales if they have any.
int64_t row_stride(const Encoding& encoding, int64_t K) {
  return (static_cast<int64_t>(encoding.row_bytes(K)) + kPieceBytes - 1) / kPieceBytes *
         kPieceBytes;
}
const float* row_scales(const PackedWeight& w) {
  return reinterpret_cast<const float*>(w.data + w.N * row_stride(w.encoding, w.K));
}

struct CopyRows {
  const uint8_t* from;    // canonical rows
  const uint8_t* scales;  // canonical, one a row; null: none
  ScaleType scale_type;
  uint8_t* to;
  float* to_scales;
  int64_t row_bytes, ld;
  int N, interleaved_head;
};

__global__ void copy_rows(const CopyRows p) {
  const int n = blockIdx.x;
  const int64_t stored = stored_row(n, p.interleaved_head);
  for (int64_t i = threadIdx.x; i < p.ld; i += blockDim.x) {
    p.to[n * p.ld + i] = i < p.row_bytes ? p.from[stored * p.row_bytes + i] : 0;
  }
  if (p.scales != nullptr && threadIdx.x == 0) {
    const int step = p.scale_type == ScaleType::f32 ? 4 : 2;
    p.to_scales[n] = decode_scale(p.scales + stored * step, p.scale_type);
  }
}

PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
  CudaDevice& device = cuda_device(context);
  PackedWeight packed;
  packed.encoding = parts.front().encoding;
  packed.K = parts.front().K;
  for (const Weight& part : parts) packed.N += part.N;
  packed.read_bytes = total_bytes(parts);
  const int64_t ld = row_stride(packed.encoding, packed.K);
  const bool has_scales = packed.encoding.scale_type != ScaleType::none;
  packed.data_bytes = static_cast<uint64_t>(packed.N * (ld + (has_scales ? 4 : 0)));
  std::byte* data = arena.take(packed.data_bytes);
  packed.data = data;
  int64_t n = 0;
  for (const Weight& part : parts) {
    const CanonicalBytes canonical = upload_canonical(device, part);
    const CopyRows copy{canonical.data,
                        canonical.scales,
                        packed.encoding.scale_type,
                        reinterpret_cast<uint8_t*>(data + n * ld),
                        reinterpret_cast<float*>(data + packed.N * ld) + n,
                        static_cast<int64_t>(packed.encoding.row_bytes(packed.K)),
                        ld,
                        static_cast<int>(part.N),
                        static_cast<int>(part.interleaved_head)};
    copy_rows<<<static_cast<unsigned>(part.N), 256, 0, device.stream()>>>(copy);
    CUDA_CHECK(cudaGetLastError());
    n += part.N;
  }
  device.synchronize();
  return packed;
}

void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
         bool accumulate) {
  CUDA_DOOR(x.type == w.kernel->act_type && x.K == w.K && ldy >= w.N, x.K, w.K, ldy, w.N);
  if (x.T == 0) return;
  const Packing packing = w.encoding.packing;
  const bool is_scaled = w.encoding.scale_type != ScaleType::none;
  const bool is_bytes = packing == Packing::int8_channel || packing == Packing::fp8_channel;
  Rows p{};
  p.w = reinterpret_cast<const uint8_t*>(w.data);
  p.ldw = row_stride(w.encoding, w.K);
  p.x = is_bytes ? reinterpret_cast<const uint8_t*>(x.codes)
                 : reinterpret_cast<const uint8_t*>(x.half);
  p.ldx = x.K_padded() * (is_bytes ? 1 : 2);
  p.row_scales = is_scaled ? row_scales(w) : nullptr;
  p.token_scales = is_bytes ? x.scales : nullptr;
  p.y = y;
  p.ldy = ldy;
  p.pieces = static_cast<int>(p.ldw / kPieceBytes);
  p.x_pieces_bytes = static_cast<int>(p.ldx);
  p.N = static_cast<int>(w.N);
  p.T = static_cast<int>(x.T);
  p.accumulate = accumulate;
  const int64_t cublas_from = packing == Packing::fp8_weight ? kDecodedTokens : kCublasTokens;
  if (x.T >= cublas_from && run_rows_cublas(context, w, x, p)) return;
  switch (packing) {
    case Packing::int8_channel:
      return launch_rows<Plain<MmaS8>>(context, p);
    case Packing::fp8_channel:
      return launch_rows<Fp8>(context, p);
    case Packing::fp8_weight:
      return launch_rows<Fp8Weight>(context, p);
    case Packing::bf16:
      return launch_rows<Plain<MmaBf16>>(context, p);
    default:
      return launch_rows<Plain<MmaF16>>(context, p);
  }
}

__device__ __forceinline__ float fp8_to_float(uint8_t code) {
  uint32_t low, high;
  fp8_to_f16(code, low, high);
  return __half2float(__ushort_as_half(static_cast<uint16_t>(low)));
}

__global__ void gather_kernel(const uint8_t* w, int64_t ld, const float* scales, Packing packing,
                              const int32_t* rows, int K, float* out) {
  launch_dependents();
  wait_for_inputs();
  const int64_t n = rows[blockIdx.x];
  const uint8_t* row = w + n * ld;
  for (int k = threadIdx.x; k < K; k += blockDim.x) {
    float value;
    if (packing == Packing::int8_channel) {
      value = static_cast<float>(reinterpret_cast<const int8_t*>(row)[k]) * scales[n];
    } else if (packing == Packing::fp8_channel || packing == Packing::fp8_weight) {
      value = fp8_to_float(row[k]) * scales[n];
    } else if (packing == Packing::bf16) {
      value = __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(row)[k]);
    } else {
      value = __half2float(reinterpret_cast<const __half*>(row)[k]);
    }
    out[static_cast<int64_t>(blockIdx.x) * K + k] = value;
  }
}

void gather_rows(const Context& context, const PackedWeight& w, const int32_t* rows, int64_t T,
                 float* out) {
  launch(context, gather_kernel, dim3(static_cast<unsigned>(T)), dim3(256), 0,
         reinterpret_cast<const uint8_t*>(w.data), row_stride(w.encoding, w.K), row_scales(w),
         w.encoding.packing, rows, static_cast<int>(w.K), out);
}

}  // namespace

LinearKernel cuda_rows_row(const char* name, Packing packing, ActType act_type) {
  return {name, "cuda", packing, act_type, prepack, run, nullptr, gather_rows};
}

}  // namespace tandem
