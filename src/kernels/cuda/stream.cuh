// y[T, N] = x[T, K] . W[N, K]^T for 16-bit activations and weights that are pre-shuffled into the
// order in which tensor cores take them; what the pieces of an encoding share.
//
// W in pieces of 16 rows x 128 channels, P::kBytes each: [N / 16][pieces], codes, places and scales
// of a piece together, so that the weights of a block are one stream. A ring of bulk copies brings
// it, one warp issues them, eight multiply: warp w takes the pieces w, w + 8 ... of one or two tiles.
// Their sums meet in shared memory in a fixed order, and the split depends on K only: a token's
// result does not depend on the tokens beside it. The copies start before the kernel's inputs are
// there. Activations come through L1 and L2, once for two tiles where there are many: read for each
// tile, those of 16 tokens would be four times the bytes of 4-bit weights. Passes of 32 tokens.
//
// A piece P has
//   kBytes, kStagePieces (a multiple of kReaders), kType
//   Tokens          one lane's activations of 8 tokens; load(channels, q, left)
//   multiply        sums += the piece in shared memory times Tokens
//   decode          the piece as 16-bit numbers
//   value           one number, rounded as the encoding's own decoder does
//   pack            a row's share of a piece from the file's bytes
#pragma once

#include <algorithm>

#include "kernels/cuda/cublas.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ring.cuh"
#include "kernels/cuda/tile.cuh"
#include "kernels/rows.h"

namespace tandem {

constexpr int kPieceChannels = 128;
constexpr int kReaders = 8;  // warps
constexpr int kStreamThreads = (kReaders + 1) * 32;

struct Stream {
  const uint8_t* w;
  bool scales_are_bf16;
  const uint16_t* x;  // [T, ldx]
  int ldx;            // a multiple of 32, zero beyond K
  float* y;
  int64_t ldy;
  int pieces;  // of a row
  int N, T;
  bool accumulate;
};

// A part of a weight as its file has it.
struct StreamSource {
  const uint8_t* data;
  const uint8_t* scales;  // null: none
  int64_t row_bytes, groups;
  int N, K, group;
};

__device__ __forceinline__ float scale_to_float(uint32_t bits, bool is_bf16) {
  return is_bf16 ? __uint_as_float(bits << 16)
                 : __half2float(__ushort_as_half(static_cast<uint16_t>(bits)));
}

// Read once: the first to leave L2.
__device__ __forceinline__ void bulk_copy_once(void* to, const void* from, uint32_t bytes,
                                               uint64_t* barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1], %2, [%3], %4;" ::"r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
}

__device__ __forceinline__ uint64_t evict_first() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// kRows tiles of rows times kTiles tiles of tokens at once.
template <typename P, int kRows, int kTiles>
struct StreamShape {
  static constexpr int kBlocks = kRows * kTiles < 4 ? 2 : 1;  // on a multiprocessor
  static constexpr int kPieces = std::max(P::kStagePieces / kRows, kReaders);  // a stage, a tile
  static constexpr int kEach = kPieces / kReaders;
  static constexpr int kTileBytes = kPieces * P::kBytes;
  static constexpr int kStageBytes = kRows * kTileBytes;
  static constexpr int kStages = 200 * 1024 / kBlocks / kStageBytes;
  static constexpr int kRingBytes = kStages * kStageBytes;
  static_assert(P::kBytes % 16 == 0 && kPieces % kReaders == 0 && kStages >= 2);
  static_assert(kBlocks * (kRingBytes + 6 * 1024) <= 227 * 1024);
};

// Block b has the rows of tiles b, b + gridDim.x ..., kRows at a time; blockIdx.y counts passes over
// the tokens.
template <typename P, int kRows, int kTiles>
__global__ void __launch_bounds__(kStreamThreads, StreamShape<P, kRows, kTiles>::kBlocks)
    stream_kernel(const Stream p) {
  using Shape = StreamShape<P, kRows, kTiles>;
  extern __shared__ __align__(128) uint8_t stages[];
  __shared__ Ring<Shape::kStages> ring;
  __shared__ float shared[kReaders * kTileTokens8 * kTileRows];
  launch_dependents();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, q = lane % 4;
  const int tiles = (p.N + kTileRows - 1) / kTileRows;
  const int step = gridDim.x * kRows, t0 = blockIdx.y * kTiles * kTileTokens8;
  ring.init(kReaders);
  RingCursor<Shape::kStages> at;
  if (warp == kReaders) {
    const uint64_t policy = evict_first();
    for (int tile = blockIdx.x * kRows; lane == 0 && tile < tiles; tile += step) {
      const int rows = min(kRows, tiles - tile);
      for (int first = 0; first < p.pieces; first += Shape::kPieces) {
        const int bytes = min(Shape::kPieces, p.pieces - first) * P::kBytes;
        wait_barrier(&ring.empty[at.stage], at.phase ^ 1);
        expect_bytes(&ring.full[at.stage], rows * bytes);
        for (int i = 0; i < rows; ++i) {
          bulk_copy_once(stages + at.stage * Shape::kStageBytes + i * Shape::kTileBytes,
                         p.w + (static_cast<int64_t>(tile + i) * p.pieces + first) * P::kBytes,
                         bytes, &ring.full[at.stage], policy);
        }
        at.advance();
      }
    }
    wait_for_inputs();
    return;
  }
  wait_for_inputs();
  const uint16_t* x[kTiles];
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
    x[j] = p.x + static_cast<int64_t>(min(t0 + j * kTileTokens8 + r, p.T - 1)) * p.ldx;
  }
  for (int tile = blockIdx.x * kRows; tile < tiles; tile += step) {
    float sums[kRows][kTiles][4] = {};
    for (int first = 0; first < p.pieces; first += Shape::kPieces) {
      typename P::Tokens tokens[Shape::kEach][kTiles];
#pragma unroll
      for (int i = 0; i < Shape::kEach; ++i) {
        const int channel = (first + warp + i * kReaders) * kPieceChannels;
#pragma unroll
        for (int j = 0; j < kTiles; ++j) tokens[i][j].load(x[j] + channel, q, p.ldx - channel);
      }
      wait_barrier(&ring.full[at.stage], at.phase);
      const uint8_t* stage = stages + at.stage * Shape::kStageBytes;
#pragma unroll
      for (int i = 0; i < Shape::kEach; ++i) {
        const int piece = warp + i * kReaders;
        if (first + piece >= p.pieces) break;
#pragma unroll
        for (int row = 0; row < kRows; ++row) {
          if (row > 0 && tile + row >= tiles) break;
          P::template multiply<kTiles>(stage + row * Shape::kTileBytes + piece * P::kBytes, lane,
                                       p.scales_are_bf16, tokens[i], sums[row]);
        }
      }
      __syncwarp();
      if (lane == 0) arrive(&ring.empty[at.stage]);
      at.advance();
    }
#pragma unroll
    for (int i = 0; i < kRows * kTiles; ++i) {
      const int first = t0 + i % kTiles * kTileTokens8, n0 = (tile + i / kTiles) * kTileRows;
      if (first >= p.T || n0 >= p.N) continue;
      sum_tile(sums[i / kTiles][i % kTiles], shared, kReaders, [&](int t, int n, float sum) {
        if (first + t >= p.T || n0 + n >= p.N) return;
        float* out = p.y + (first + t) * p.ldy + n0 + n;
        *out = p.accumulate ? *out + sum : sum;
      });
    }
  }
}

template <typename P, int kRows, int kTiles>
void launch_stream(const Context& context, const Stream& p) {
  using Shape = StreamShape<P, kRows, kTiles>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(stream_kernel<P, kRows, kTiles>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kRingBytes);
  CUDA_CHECK(allowed);
  // Blocks b and b + multiprocessors share one: together they have as many tiles as the others.
  const int slots = Shape::kBlocks * cuda_device(context).multiprocessors();
  const unsigned blocks = blocks_for(p.N, kRows * kTileRows);
  launch(context, stream_kernel<P, kRows, kTiles>,
         dim3(std::min(blocks, static_cast<unsigned>(slots)),
              blocks_for(p.T, kTiles * kTileTokens8)),
         dim3(kStreamThreads), Shape::kRingBytes, p);
}

// Whether pairs of tiles leave no more multiprocessors idle than single ones, about.
inline bool pairs_fill(int N, int multiprocessors) {
  const int pairs = (N + 2 * kTileRows - 1) / (2 * kTileRows);
  const int rounds = (pairs + multiprocessors - 1) / multiprocessors;
  return rounds * multiprocessors * 10 <= pairs * 11;
}

template <typename P>
void launch_stream(const Context& context, const Stream& p) {
  if (p.T > 16) return launch_stream<P, 2, 4>(context, p);
  if (p.T > 8) return launch_stream<P, 2, 2>(context, p);
  if (p.T > 1 && pairs_fill(p.N, cuda_device(context).multiprocessors())) {
    return launch_stream<P, 2, 1>(context, p);
  }
  launch_stream<P, 1, 1>(context, p);
}

// One warp decodes a piece: 16 rows of out [rows, ld] from tile `first_tile` on.
template <typename P>
__global__ void decode_stream(const Stream p, int64_t first_tile, int ld, uint16_t* out) {
  launch_dependents();
  wait_for_inputs();
  const int piece = blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32;
  if (piece >= p.pieces) return;
  const uint8_t* from = p.w + ((first_tile + blockIdx.x) * p.pieces + piece) * P::kBytes;
  const int channel = piece * kPieceChannels;
  P::decode(from, threadIdx.x % 32, p.scales_are_bf16, ld - channel, ld,
            out + static_cast<int64_t>(blockIdx.x) * kTileRows * ld + channel);
}

// False when cuBLASLt is not there or does not take the shape.
template <typename P>
bool run_dense(const Context& context, const Stream& p) {
  CudaDevice& device = cuda_device(context);
  if (device.cublas() == nullptr) return false;
  const int64_t most_rows = static_cast<int64_t>(CudaDevice::kWorkspaceBytes) / (p.ldx * 2) /
                            kTileRows * kTileRows;
  auto* w = reinterpret_cast<uint16_t*>(device.workspace());
  for (int64_t n = 0; n < p.N; n += most_rows) {
    const int64_t rows = std::min<int64_t>(most_rows, p.N - n);
    launch(context, decode_stream<P>, dim3(blocks_for(rows, kTileRows), blocks_for(p.pieces, 4)),
           dim3(128), 0, p, n / kTileRows, p.ldx, w);
    if (!device.cublas()->matmul({P::kType, rows, p.T, p.ldx, w, p.ldx, p.x, p.ldx, p.y + n, p.ldy,
                                  p.accumulate},
                                 device.stream())) {
      CUDA_DOOR(n == 0, n);
      return false;
    }
  }
  return true;
}

inline int stream_pieces(int64_t K) {
  return static_cast<int>((K + kPieceChannels - 1) / kPieceChannels);
}

// dense_from: tokens from which on decoding a matrix first costs less.
template <typename P>
void run_stream(const Context& context, const PackedWeight& w, const Activations& x, float* y,
                int64_t ldy, bool accumulate, int64_t dense_from) {
  CUDA_DOOR(x.type == P::kType && x.K == w.K && ldy >= w.N, x.K, w.K, ldy, w.N);
  if (x.T == 0) return;
  Stream p{};
  p.w = reinterpret_cast<const uint8_t*>(w.data);
  p.scales_are_bf16 = w.encoding.scale_type == ScaleType::bf16;
  p.x = x.half;
  p.ldx = static_cast<int>(x.K_padded());
  p.y = y;
  p.ldy = ldy;
  p.pieces = stream_pieces(w.K);
  p.N = static_cast<int>(w.N);
  p.T = static_cast<int>(x.T);
  p.accumulate = accumulate;
  if (x.T >= dense_from && !w.sparse_only && run_dense<P>(context, p)) return;
  launch_stream<P>(context, p);
}

// A block of threads a row; rows beyond the part's last are zero.
template <typename P>
__global__ void pack_stream(const StreamSource p, int interleaved_head, int first_row, int pieces,
                            uint8_t* to) {
  const int n = first_row + blockIdx.x;
  const int64_t stored = static_cast<int>(blockIdx.x) < p.N
                             ? stored_row(blockIdx.x, interleaved_head)
                             : int64_t{-1};
  for (int i = threadIdx.x; i < pieces * 16; i += blockDim.x) {
    const int64_t piece = static_cast<int64_t>(n / kTileRows) * pieces + i / 16;
    P::pack(p, stored, n % kTileRows, i / 16, i % 16 / 4, i % 4, to + piece * P::kBytes);
  }
}

template <typename P>
void pack_stream_parts(CudaDevice& device, const std::vector<Weight>& parts, int64_t N,
                       std::byte* data) {
  const int64_t padded = (N + kTileRows - 1) / kTileRows * kTileRows;
  int64_t n = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Weight& part = parts[i];
    const CanonicalBytes canonical = upload_canonical(device, part);
    const StreamSource source{canonical.data,
                              canonical.scales,
                              static_cast<int64_t>(part.encoding.row_bytes(part.K)),
                              part.encoding.groups_per_row(part.K),
                              static_cast<int>(part.N),
                              static_cast<int>(part.K),
                              static_cast<int>(part.encoding.group)};
    const int64_t rows = i + 1 == parts.size() ? padded - n : part.N;
    pack_stream<P><<<static_cast<unsigned>(rows), 128, 0, device.stream()>>>(
        source, static_cast<int>(part.interleaved_head), static_cast<int>(n),
        stream_pieces(part.K), reinterpret_cast<uint8_t*>(data));
    CUDA_CHECK(cudaGetLastError());
    n += part.N;
  }
  device.synchronize();
}

template <typename P>
PackedWeight prepack_stream(const Context& context, const std::vector<Weight>& parts,
                            Arena& arena) {
  PackedWeight packed;
  packed.encoding = parts.front().encoding;
  packed.K = parts.front().K;
  for (const Weight& part : parts) packed.N += part.N;
  packed.read_bytes = total_bytes(parts);
  packed.data_bytes = static_cast<uint64_t>((packed.N + kTileRows - 1) / kTileRows *
                                            stream_pieces(packed.K) * P::kBytes);
  std::byte* data = arena.take(packed.data_bytes);
  packed.data = data;
  pack_stream_parts<P>(cuda_device(context), parts, packed.N, data);
  return packed;
}

template <typename P>
__global__ void gather_stream(const uint8_t* w, bool is_bf16, int pieces, const int32_t* rows,
                              int K, float* out) {
  launch_dependents();
  wait_for_inputs();
  const int64_t n = rows[blockIdx.x], tile = n / kTileRows;
  for (int k = threadIdx.x; k < K; k += blockDim.x) {
    const uint8_t* piece = w + (tile * pieces + k / kPieceChannels) * P::kBytes;
    out[static_cast<int64_t>(blockIdx.x) * K + k] =
        P::value(piece, static_cast<int>(n % kTileRows), k % kPieceChannels, is_bf16);
  }
}

template <typename P>
void gather_stream_rows(const Context& context, const PackedWeight& w, const int32_t* rows,
                        int64_t T, float* out) {
  if (T == 0) return;
  launch(context, gather_stream<P>, dim3(static_cast<unsigned>(T)), dim3(256), 0,
         reinterpret_cast<const uint8_t*>(w.data), w.encoding.scale_type == ScaleType::bf16,
         stream_pieces(w.K), rows, static_cast<int>(w.K), out);
}

}  // namespace tandem
