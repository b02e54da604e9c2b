// y[T, N] = x[T, K] . W[N, K]^T for weights that stay row-major: bf16, f16, and int8 with one scale
// a row.
//
// W  [N, ld bytes], ld the row's bytes rounded up to 64 and zero beyond K; x [T, K_padded] of the
// same type (int8: with one scale a token); y f32. cuBLASLt reads the same copy for many tokens.
//
// A block owns 16 rows at a time. Its warps share K: warp w takes the pieces w, w + W ... of 64
// bytes a row. A lane has 16 bytes of row r and of row r + 8, which are the A fragments of two mma,
// and 16 bytes of a token, the B fragments; weights go from memory to the tensor cores without one
// instruction of arithmetic. The warps' sums meet in shared memory in a fixed order, and the split
// depends on K only: a token's result does not depend on the tokens beside it. Bound by N ld bytes.
#include <algorithm>

#include "kernels/cuda/cublas.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/ring.cuh"
#include "kernels/cuda/tile.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/rows.h"

namespace tandem {
namespace {

constexpr int kPieceBytes = 64;  // of a row, for one warp-wide load
constexpr int kRows = kTileRows;
constexpr int kMaxTiles = 8;           // of 8 tokens, for one pass over the weights
constexpr int64_t kCublasTokens = 17;  // from here on cuBLASLt is faster

struct Rows {
  const uint8_t* w;
  int64_t ldw;  // bytes
  const uint8_t* x;
  int64_t ldx;                // bytes
  const float* row_scales;    // [N]; int8 only
  const float* token_scales;  // [T]; int8 only
  float* y;
  int64_t ldy;
  int pieces;          // of a row
  int x_pieces_bytes;  // bytes of a token's row that may be read
  int N, T;
  bool accumulate;
};

// The block's sums of rows n0 ... and tokens t0 ... into y.
template <typename Sum>
__device__ __forceinline__ void store_tile(const Rows& p, const Sum (&sums)[4], Sum* shared,
                                           int warps, int n0, int t0) {
  if (t0 >= p.T) return;
  sum_tile(sums, shared, warps, [&](int t, int n, Sum sum) {
    if (t0 + t >= p.T || n0 + n >= p.N) return;
    float value = static_cast<float>(sum);
    if (p.row_scales != nullptr) value *= p.row_scales[n0 + n] * p.token_scales[t0 + t];
    float* out = p.y + (t0 + t) * p.ldy + n0 + n;
    *out = p.accumulate ? *out + value : value;
  });
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

template <typename Mma, int kTiles, int kUnroll>
__global__ void __launch_bounds__(256) rows_kernel(const Rows p) {
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
  for (int j = 0; j < kTiles; ++j) x[j] = p.x + min(t0 + j * 8 + r, p.T - 1) * p.ldx + q * 16;
  Sum sums[kTiles][4] = {};
  for (int piece = warp; piece < p.pieces; piece += warps * kUnroll) {
    uint4 a[kUnroll][2];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) a[u][0] = next[u][0], a[u][1] = next[u][1];
    load_pieces(next, row0, row1, piece + warps * kUnroll, warps, p.pieces);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int at = (piece + u * warps) * kPieceBytes;
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        // Beyond a token's row lies the next one's: the weights there are zero, but infinity times
        // zero is not.
        const uint4 b =
            at + q * 16 < p.x_pieces_bytes ? *reinterpret_cast<const uint4*>(x[j] + at) : uint4{};
        Mma::run(sums[j], a[u][0].x, a[u][1].x, a[u][0].y, a[u][1].y, b.x, b.y);
        Mma::run(sums[j], a[u][0].z, a[u][1].z, a[u][0].w, a[u][1].w, b.z, b.w);
      }
    }
  }

#pragma unroll
  for (int j = 0; j < kTiles; ++j) store_tile(p, sums[j], shared, warps, n0, t0 + j * 8);
}

constexpr int kStages = 6, kSegment = 1024;            // bytes of a row in a stage
constexpr int kSegmentPitch = kSegment + kPieceBytes;  // rows begin in different banks
constexpr int kReaders = 8;                            // warps
constexpr int kStageBytes = kTileRows * kSegmentPitch;

// The same sums for few tokens, weights through a ring. A block has the tiles blockIdx.x, +
// gridDim.x ...
template <typename Mma, int kTiles>
__global__ void __launch_bounds__((kReaders + 1) * 32) rows_ring_kernel(const Rows p, int tiles) {
  using Sum = typename Mma::Sum;
  constexpr int kPieces = kSegment / kPieceBytes / kReaders;  // of a stage, for a warp
  extern __shared__ __align__(128) uint8_t stages[];
  __shared__ Ring<kStages> ring;
  __shared__ Sum shared[kReaders * kTileTokens8 * kTileRows];
  launch_dependents();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, q = lane % 4;
  const int row_bytes = p.pieces * kPieceBytes;
  ring.init(kReaders);
  RingCursor<kStages> at;
  if (warp == kReaders) {
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
      const uint8_t* row = p.w + static_cast<int64_t>(min(tile * kRows + lane, p.N - 1)) * p.ldw;
      for (int first = 0; first < row_bytes; first += kSegment) {
        wait_barrier(&ring.empty[at.stage], at.phase ^ 1);
        const int bytes = min(kSegment, row_bytes - first);
        if (lane == 0) expect_bytes(&ring.full[at.stage], bytes * kRows);
        __syncwarp();
        if (lane < kRows) {
          bulk_copy(stages + at.stage * kStageBytes + lane * kSegmentPitch, row + first, bytes,
                    &ring.full[at.stage]);
        }
        at.advance();
      }
    }
    wait_for_inputs();
    return;
  }
  wait_for_inputs();
  const uint8_t* x[kTiles];
#pragma unroll
  for (int j = 0; j < kTiles; ++j) x[j] = p.x + min(j * 8 + r, p.T - 1) * p.ldx + q * 16;
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    Sum sums[kTiles][4] = {};
    for (int first = 0; first < row_bytes; first += kSegment) {
      uint4 b[kPieces][kTiles];
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        const int byte = first + (warp + i * kReaders) * kPieceBytes;
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          b[i][j] = byte + q * 16 < p.x_pieces_bytes ? *reinterpret_cast<const uint4*>(x[j] + byte)
                                                     : uint4{};
        }
      }
      wait_barrier(&ring.full[at.stage], at.phase);
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        const int byte = (warp + i * kReaders) * kPieceBytes;
        if (first + byte >= row_bytes) break;
        const uint8_t* from = stages + at.stage * kStageBytes + r * kSegmentPitch + byte + q * 16;
        const uint4 a = *reinterpret_cast<const uint4*>(from);
        const uint4 c = *reinterpret_cast<const uint4*>(from + 8 * kSegmentPitch);
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          Mma::run(sums[j], a.x, c.x, a.y, c.y, b[i][j].x, b[i][j].y);
          Mma::run(sums[j], a.z, c.z, a.w, c.w, b[i][j].z, b[i][j].w);
        }
      }
      __syncwarp();
      if (lane == 0) arrive(&ring.empty[at.stage]);
      at.advance();
    }
#pragma unroll
    for (int j = 0; j < kTiles; ++j) store_tile(p, sums[j], shared, kReaders, tile * kRows, j * 8);
  }
}

template <typename Mma, int kTiles>
void launch_ring(const Context& context, const Rows& p) {
  constexpr int kBytes = kStages * kStageBytes;
  static_assert(2 * (kBytes + 8192) <= 227 * 1024, "two blocks share a multiprocessor");
  static const cudaError_t allowed = cudaFuncSetAttribute(
      rows_ring_kernel<Mma, kTiles>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  CUDA_CHECK(allowed);
  const int tiles = (p.N + kRows - 1) / kRows;
  launch(context, rows_ring_kernel<Mma, kTiles>,
         dim3(balanced_blocks(tiles, 2 * cuda_device(context).multiprocessors())),
         dim3((kReaders + 1) * 32), kBytes, p, tiles);
}

template <typename Mma, int kTiles, int kUnroll>
void launch_rows(const Context& context, const Rows& p) {
  // At least 4 pieces a warp, so that a lane has 8 loads under way.
  const int warps = std::clamp(p.pieces / 4, 1, 8);
  launch(context, rows_kernel<Mma, kTiles, kUnroll>,
         dim3(blocks_for(p.N, kRows), blocks_for(p.T, kTiles * 8)),
         dim3(static_cast<unsigned>(warps * 32)), tile_bytes(warps), p);
}

template <typename Mma>
void launch_rows(const Context& context, const Rows& p) {
  if (p.T <= 8) {
    launch_ring<Mma, 1>(context, p);
  } else if (p.T <= 16) {
    launch_ring<Mma, 2>(context, p);
  } else if (p.T <= 32) {
    launch_rows<Mma, 4, 2>(context, p);
  } else {
    launch_rows<Mma, kMaxTiles, 1>(context, p);
  }
}

// The layout: the rows, then for int8 their scales.
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

// y (+)= sums * scales, for sums of whole numbers.
__global__ void scale_sums(const int32_t* sums, const float* row_scales, const float* token_scales,
                           float* y, int64_t ldy, int N, bool accumulate) {
  launch_dependents();
  wait_for_inputs();
  const int n = blockIdx.x * blockDim.x + threadIdx.x;
  const int64_t t = blockIdx.y;
  if (n >= N) return;
  const float value = static_cast<float>(sums[t * N + n]) * (row_scales[n] * token_scales[t]);
  float& out = y[t * ldy + n];
  out = accumulate ? out + value : value;
}

// False when cuBLASLt is not there or does not take the shape. Whole numbers go through the
// workspace, some tokens at a time; they are the sums that rows_kernel makes.
bool run_cublas(const Context& context, const PackedWeight& w, const Activations& x,
                const Rows& p) {
  CudaDevice& device = cuda_device(context);
  if (device.cublas() == nullptr) return false;
  if (x.type != ActType::int8_token) {
    return device.cublas()->matmul(
        {x.type, w.N, x.T, w.K, w.data, p.ldw / 2, x.half, p.ldx / 2, p.y, p.ldy, p.accumulate},
        device.stream());
  }
  const int64_t most = static_cast<int64_t>(CudaDevice::kWorkspaceBytes / 4) / w.N;
  auto* sums = reinterpret_cast<int32_t*>(device.workspace());
  for (int64_t t = 0; t < x.T; t += most) {
    const int64_t count = std::min(most, x.T - t);
    if (!device.cublas()->matmul(
            {x.type, w.N, count, w.K, w.data, p.ldw, x.codes + t * p.ldx, p.ldx, sums, w.N, false},
            device.stream())) {
      CUDA_DOOR(t == 0, t);
      return false;
    }
    launch(context, scale_sums, dim3(blocks_for(w.N, 256), static_cast<unsigned>(count)), dim3(256),
           0, sums, p.row_scales, p.token_scales + t, p.y + t * p.ldy, p.ldy, static_cast<int>(w.N),
           p.accumulate);
  }
  return true;
}

void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
         bool accumulate) {
  CUDA_DOOR(x.type == w.kernel->act_type && x.K == w.K && ldy >= w.N, x.K, w.K, ldy, w.N);
  if (x.T == 0) return;
  const bool is_int8 = w.encoding.packing == Packing::int8_channel;
  const int64_t element = is_int8 ? 1 : 2;
  Rows p{};
  p.w = reinterpret_cast<const uint8_t*>(w.data);
  p.ldw = row_stride(w.encoding, w.K);
  p.x = is_int8 ? reinterpret_cast<const uint8_t*>(x.codes)
                : reinterpret_cast<const uint8_t*>(x.half);
  p.ldx = x.K_padded() * element;
  p.row_scales = is_int8 ? row_scales(w) : nullptr;
  p.token_scales = x.scales;
  p.y = y;
  p.ldy = ldy;
  p.pieces = static_cast<int>(p.ldw / kPieceBytes);
  p.x_pieces_bytes = static_cast<int>(p.ldx);
  p.N = static_cast<int>(w.N);
  p.T = static_cast<int>(x.T);
  p.accumulate = accumulate;
  if (x.T >= kCublasTokens && run_cublas(context, w, x, p)) return;
  if (is_int8) return launch_rows<MmaS8>(context, p);
  return w.encoding.packing == Packing::bf16 ? launch_rows<MmaBf16>(context, p)
                                             : launch_rows<MmaF16>(context, p);
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
