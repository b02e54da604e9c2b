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
//   kBytes, kChannels, kStagePieces (a multiple of kReaders), kType
//   Sum             float, or int where products are exact; those have row scales
//   Tokens          one lane's activations of 8 tokens; load(channels, q, left)
//   Weights         a lane's share of it; load(piece in shared memory, lane)
//   multiply        sums += Weights times Tokens
//   decode          the piece as 16-bit numbers
//   value           one number, rounded as the encoding's own decoder does
//   pack            a row's share of a piece from the file's bytes
#pragma once

#include <algorithm>

#include "kernels/cuda/cublas.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/piece.cuh"
#include "kernels/cuda/ring.cuh"
#include "kernels/cuda/tile.cuh"
#include "kernels/rows.h"

namespace tandem {

constexpr int kReaders = 8;  // warps
constexpr int kStreamThreads = (kReaders + 1) * 32;

struct Stream {
  const uint8_t* w;
  bool scales_are_bf16;
  const uint16_t* x;  // [T, ldx], one number of 16 bits or two of 8
  int ldx;            // a multiple of 16, zero beyond K
  const float* row_scales;    // [N]; null: none
  const float* token_scales;  // [T], with them
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
  const uint8_t* zeros;   // null: none
  int64_t row_bytes, groups;
  int N, K, group;
  float* row_scales;  // of the packed weight, from the part's first row on; null: none
  ScaleType scale_type;
};

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

template <typename Sum>
__device__ __forceinline__ void store_sum(const Stream& p, int t, int n, Sum sum) {
  if (t >= p.T || n >= p.N) return;
  float value = static_cast<float>(sum);
  if (p.row_scales != nullptr) value *= p.row_scales[n] * p.token_scales[t];
  float* out = p.y + t * p.ldy + n;
  *out = p.accumulate ? *out + value : value;
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
  __shared__ typename P::Sum shared[kReaders * kTileTokens8 * kTileRows];
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
    typename P::Sum sums[kRows][kTiles][4] = {};
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
          typename P::Weights weights;
          weights.load(stage + row * Shape::kTileBytes + piece * P::kBytes, lane);
          P::template multiply<kTiles>(weights, p.scales_are_bf16, tokens[i], sums[row]);
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
      sum_tile(sums[i / kTiles][i % kTiles], shared, kReaders, [&](int t, int n, auto sum) {
        store_sum(p, first + t, n0 + n, sum);
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

template <typename P>
int stream_pieces(int64_t K) {
  return static_cast<int>((K + P::kChannels - 1) / P::kChannels);
}
// Of the pieces; then come the scales of the rows.
template <typename P>
uint64_t stream_bytes(int64_t N, int64_t K) {
  return static_cast<uint64_t>((N + kTileRows - 1) / kTileRows * stream_pieces<P>(K) * P::kBytes);
}
inline bool has_row_scales(const Encoding& encoding) {
  return encoding.group == 0 && encoding.scale_type != ScaleType::none;
}

template <typename P>
Stream stream_of(const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
                 bool accumulate) {
  CUDA_DOOR(x.type == P::kType && x.K == w.K && ldy >= w.N, x.K, w.K, ldy, w.N);
  Stream p{};
  p.w = reinterpret_cast<const uint8_t*>(w.data);
  p.scales_are_bf16 = w.encoding.scale_type == ScaleType::bf16;
  constexpr bool is_bytes = P::kChannels > kPieceChannels;
  p.x = is_bytes ? reinterpret_cast<const uint16_t*>(x.codes) : x.half;
  p.ldx = static_cast<int>(x.K_padded() / (is_bytes ? 2 : 1));
  if (has_row_scales(w.encoding)) {
    p.row_scales = reinterpret_cast<const float*>(w.data + stream_bytes<P>(w.N, w.K));
    p.token_scales = x.scales;
  }
  p.y = y;
  p.ldy = ldy;
  p.pieces = stream_pieces<P>(w.K);
  p.N = static_cast<int>(w.N);
  p.T = static_cast<int>(x.T);
  p.accumulate = accumulate;
  return p;
}

// dense_from: tokens from which on decoding a matrix first costs less.
template <typename P>
void run_stream(const Context& context, const PackedWeight& w, const Activations& x, float* y,
                int64_t ldy, bool accumulate, int64_t dense_from) {
  const Stream p = stream_of<P>(w, x, y, ldy, accumulate);
  if (x.T == 0) return;
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
  if (p.row_scales != nullptr && stored >= 0 && threadIdx.x == 0) {
    const int step = p.scale_type == ScaleType::f32 ? 4 : 2;
    p.row_scales[blockIdx.x] = decode_scale(p.scales + stored * step, p.scale_type);
  }
}

template <typename P>
void pack_stream_parts(CudaDevice& device, const std::vector<Weight>& parts, int64_t N,
                       std::byte* data) {
  const bool has_scales = has_row_scales(parts.front().encoding);
  auto* row_scales = has_scales ? reinterpret_cast<float*>(
                                      data + stream_bytes<P>(N, parts.front().K))
                                : nullptr;
  const int64_t padded = (N + kTileRows - 1) / kTileRows * kTileRows;
  int64_t n = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Weight& part = parts[i];
    const CanonicalBytes canonical = upload_canonical(device, part);
    const StreamSource source{canonical.data,
                              canonical.scales,
                              canonical.zeros,
                              static_cast<int64_t>(part.encoding.row_bytes(part.K)),
                              part.encoding.groups_per_row(part.K),
                              static_cast<int>(part.N),
                              static_cast<int>(part.K),
                              static_cast<int>(part.encoding.group),
                              row_scales == nullptr ? nullptr : row_scales + n,
                              part.encoding.scale_type};
    const int64_t rows = i + 1 == parts.size() ? padded - n : part.N;
    pack_stream<P><<<static_cast<unsigned>(rows), 128, 0, device.stream()>>>(
        source, static_cast<int>(part.interleaved_head), static_cast<int>(n),
        stream_pieces<P>(part.K), reinterpret_cast<uint8_t*>(data));
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
  packed.data_bytes = stream_bytes<P>(packed.N, packed.K);
  if (has_row_scales(packed.encoding)) packed.data_bytes += static_cast<uint64_t>(packed.N) * 4;
  std::byte* data = arena.take(packed.data_bytes);
  packed.data = data;
  packed.columns = upload_columns(cuda_device(context), parts.front(), arena);
  pack_stream_parts<P>(cuda_device(context), parts, packed.N, data);
  return packed;
}

template <typename P>
__global__ void gather_stream(const uint8_t* w, const float* row_scales, bool is_bf16, int pieces,
                              const int32_t* rows, const int32_t* columns, int K, float* out) {
  launch_dependents();
  wait_for_inputs();
  const int64_t n = rows[blockIdx.x], tile = n / kTileRows;
  for (int k = threadIdx.x; k < K; k += blockDim.x) {
    const uint8_t* piece = w + (tile * pieces + k / P::kChannels) * P::kBytes;
    const float value =
        P::value(piece, static_cast<int>(n % kTileRows), k % P::kChannels, is_bf16);
    out[static_cast<int64_t>(blockIdx.x) * K + (columns != nullptr ? columns[k] : k)] =
        row_scales != nullptr ? value * row_scales[n] : value;
  }
}

template <typename P>
void gather_stream_rows(const Context& context, const PackedWeight& w, const int32_t* rows,
                        int64_t T, float* out) {
  if (T == 0) return;
  const auto* data = reinterpret_cast<const uint8_t*>(w.data);
  const auto* row_scales = reinterpret_cast<const float*>(data + stream_bytes<P>(w.N, w.K));
  launch(context, gather_stream<P>, dim3(static_cast<unsigned>(T)), dim3(256), 0, data,
         has_row_scales(w.encoding) ? row_scales : nullptr, w.encoding.scale_type == ScaleType::bf16,
         stream_pieces<P>(w.K), rows, w.columns, static_cast<int>(w.K), out);
}

}  // namespace tandem
