// y[T, N] = x[T, K] . W[N, K]^T for E4M3 with a scale for each 128 channels of a row, against E4M3
// activations with one for each 128 channels of a token.
//
// W as in linear_rows.cu, [N, ld], then scales in f32, [N / 16][K / 128][16 rows]. Up to 16 tokens
// by the ring of rows_ring.cuh, whose stage is eight blocks of 128 channels, one for each warp: a
// block's sum is scaled before it joins the others, in an order that depends on K only. A prompt's
// tokens go through cuBLASLt in f16: some rows of W at a time, and the activations, each number
// rounded once more by 2^-11; without the library in passes of 16. Bound by N ld bytes.
#include <algorithm>

#include "kernels/cuda/cublas.h"
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/rows_ring.cuh"

namespace tandem {
namespace {

constexpr int64_t kDenseFrom = 65;    // tokens from which on decoding a matrix first costs less
constexpr int64_t kMostRows = 65520;  // of a grid's second dimension
constexpr int kMostTokens = 16;       // of a pass
constexpr int kBlock = static_cast<int>(kFp8Block);
constexpr int kBlockPieces = kBlock / kPieceBytes;
static_assert(kRingSegment == kRingReaders * kBlock, "a stage is a block for each warp");

struct Fp8Blocks {
  Rows rows;
  const float* w_scales;  // [N / 16][blocks][16]
  const float* x_scales;  // [blocks, step_tokens]
  int blocks;             // of a row
  int step_tokens;        // of which rows.T make a pass
};

__device__ __forceinline__ int64_t scale_index(int64_t n, int block, int blocks) {
  return (n / kTileRows * blocks + block) * kTileRows + n % kTileRows;
}

// What a warp has of one stage besides the weights: its block of kTiles times eight tokens, and the
// scales of rows r and r + 8.
template <int kTiles>
struct BlockTokens {
  uint4 words[kBlockPieces][kTiles][1];
  float rows[2];
  int block;  // of the row

  __device__ __forceinline__ void load(const Fp8Blocks& p, int tile, int first) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, q = lane % 4;
#pragma unroll
    for (int i = 0; i < kBlockPieces; ++i) {
      const int byte = first + warp * kBlock + i * kPieceBytes;
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        const int t = j * kTileTokens8 + r;
        load_token<Fp8>(p.rows, token_row<Fp8>(p.rows, t, q), byte, q, words[i][j], t < p.rows.T);
      }
    }
    block = min(first / kBlock + warp, p.blocks - 1);
    const float* scales = p.w_scales + scale_index(int64_t{tile} * kTileRows, block, p.blocks);
    rows[0] = scales[r], rows[1] = scales[r + 8];
  }
};

// sums += the warp's block of a stage, of which `bytes` of each row are weights.
template <int kTiles>
__device__ __forceinline__ void multiply_block(const Fp8Blocks& p, const uint8_t* stage, int bytes,
                                               const BlockTokens<kTiles>& x,
                                               float (&sums)[kTiles][4]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, q = lane % 4;
  if (warp * kBlock >= bytes) return;
  float of_block[kTiles][4] = {};
#pragma unroll
  for (int i = 0; i < kBlockPieces; ++i) {
    const int byte = warp * kBlock + i * kPieceBytes;
    if (byte >= bytes) break;
    const uint8_t* from = stage + r * kRingPitch + byte + q * 16;
    uint32_t rows[Fp8::kSteps][4];
    Fp8::rows(*reinterpret_cast<const uint4*>(from),
              *reinterpret_cast<const uint4*>(from + 8 * kRingPitch), rows);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      uint32_t columns[Fp8::kSteps][2];
      Fp8::tokens(x.words[i][j], columns);
#pragma unroll
      for (int s = 0; s < Fp8::kSteps; ++s) {
        MmaF16::run(of_block[j], rows[s][0], rows[s][1], rows[s][2], rows[s][3], columns[s][0],
                    columns[s][1]);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int t = min(j * kTileTokens8 + 2 * q + i, p.rows.T - 1);
      const float scale = p.x_scales[static_cast<int64_t>(x.block) * p.step_tokens + t];
      sums[j][i] += of_block[j][i] * (x.rows[0] * scale);
      sums[j][2 + i] += of_block[j][2 + i] * (x.rows[1] * scale);
    }
  }
}

// A block of threads has the tiles blockIdx.x, + gridDim.x ...
template <int kTiles>
__global__ void __launch_bounds__(kReaderThreads + 32, kRingBlocks)
    fp8_block_kernel(const Fp8Blocks p, int tiles) {
  using Tokens = BlockTokens<kTiles>;
  extern __shared__ __align__(128) uint8_t stages[];
  __shared__ Ring<kRingStages> ring;
  __shared__ float shared[kRingReaders * kTileTokens8 * kTileRows];
  launch_dependents();
  ring.init(kRingReaders);
  if (threadIdx.x >= kReaderThreads) {
    fill_ring(p.rows, tiles, stages, ring);
    wait_for_inputs();
    return;
  }
  wait_for_inputs();
  const int row_bytes = p.rows.pieces * kPieceBytes;
  RingCursor<kRingStages> at;
  int tile = blockIdx.x, first = 0;
  float sums[kTiles][4] = {};
  const auto multiply = [&](const Tokens& tokens, Tokens& next) {
    const int left = row_bytes - first, now = tile;
    first = left > kRingSegment ? first + kRingSegment : 0;
    if (first == 0) tile += gridDim.x;
    next.load(p, min(tile, tiles - 1), first);
    wait_barrier(&ring.full[at.stage], at.phase);
    multiply_block(p, stages + at.stage * kRingStageBytes, left, tokens, sums);
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive(&ring.empty[at.stage]);
    at.advance();
    if (first != 0) return;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      store_tile(p.rows, sums[j], shared, kRingReaders, now * kTileRows, j * kTileTokens8);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[j][i] = 0;
    }
  };
  Tokens tokens, next;  // in turns: a copy would wait for the loads
  tokens.load(p, tile, 0);
  while (tile < tiles) {
    multiply(tokens, next);
    if (tile < tiles) multiply(next, tokens);
  }
}

template <int kTiles>
void launch_fp8_block(const Context& context, const Fp8Blocks& p) {
  constexpr int kBytes = kRingStages * kRingStageBytes;
  static const cudaError_t allowed = cudaFuncSetAttribute(
      fp8_block_kernel<kTiles>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  CUDA_CHECK(allowed);
  const int tiles = (p.rows.N + kTileRows - 1) / kTileRows;
  launch(context, fp8_block_kernel<kTiles>,
         dim3(balanced_blocks(tiles, kRingBlocks * cuda_device(context).multiprocessors())),
         dim3(kReaderThreads + 32), kBytes, p, tiles);
}

__device__ __forceinline__ float e4m3_to_float(uint8_t code) {
  uint32_t low, high;
  fp8_to_f16(code, low, high);
  return __half2float(__ushort_as_half(static_cast<uint16_t>(low)));
}

// out[row, k] = code * scale: rows of W from `first` on, or tokens. A thread has 16 channels, of
// which those below ld, a multiple of 32, are there.
__global__ void decode_f16(const Fp8Blocks p, bool is_weight, int64_t first, int ld, __half* out) {
  launch_dependents();
  wait_for_inputs();
  const int k = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) * 16;
  if (k >= ld) return;
  const int64_t row = first + blockIdx.y;
  const uint8_t* codes = is_weight ? p.rows.w + row * p.rows.ldw : p.rows.x + row * p.rows.ldx;
  const float scale = is_weight
                          ? p.w_scales[scale_index(row, k / kBlock, p.blocks)]
                          : p.x_scales[static_cast<int64_t>(k / kBlock) * p.step_tokens + row];
  const uint4 words = *reinterpret_cast<const uint4*>(codes + k);
  uint32_t pairs[8];
#pragma unroll
  for (int i = 0; i < 4; ++i) fp8_to_f16(word(words, i), pairs[2 * i], pairs[2 * i + 1]);
#pragma unroll
  for (uint32_t& pair : pairs) {
    const float2 v = __half22float2(*reinterpret_cast<const __half2*>(&pair));
    const __half2 scaled = __floats2half2_rn(v.x * scale, v.y * scale);
    pair = *reinterpret_cast<const uint32_t*>(&scaled);
  }
  auto* to = reinterpret_cast<uint4*>(out + static_cast<int64_t>(blockIdx.y) * ld + k);
  to[0] = {pairs[0], pairs[1], pairs[2], pairs[3]};
  to[1] = {pairs[4], pairs[5], pairs[6], pairs[7]};
}

void launch_decode(const Context& context, const Fp8Blocks& p, bool is_weight, int64_t first,
                   int64_t count, int64_t ld, __half* out) {
  launch(context, decode_f16, dim3(blocks_for(ld, 16 * 128), static_cast<unsigned>(count)),
         dim3(128), 0, p, is_weight, first, static_cast<int>(ld), out);
}

// Of `all`, in as few and as equal shares as can be: whole tiles, at most `most`.
int64_t share_of(int64_t all, int64_t most) {
  const int64_t tiles = most / kTileRows, shares = blocks_for(all, tiles * kTileRows);
  return blocks_for(blocks_for(all, kTileRows), shares) * int64_t{kTileRows};
}

// False when cuBLASLt is not there or does not take the shape.
bool run_dense(const Context& context, const Fp8Blocks& p) {
  CudaDevice& device = cuda_device(context);
  if (device.cublas() == nullptr || p.rows.T < kDenseFrom) return false;
  constexpr int64_t kBytes = CudaDevice::kWorkspaceBytes;
  const int64_t ld = p.rows.ldx, T = p.rows.T, N = p.rows.N;
  const int64_t tokens_each = share_of(T, std::min(kMostRows, kBytes / 2 / (ld * 2)));
  const int64_t x_bytes = (tokens_each * ld * 2 + 255) / 256 * 256;
  const int64_t rows_each = share_of(N, std::min(kMostRows, (kBytes - x_bytes) / (ld * 2)));
  auto* x = reinterpret_cast<__half*>(device.workspace());
  auto* w = reinterpret_cast<__half*>(device.workspace() + x_bytes);
  for (int64_t t = 0; t < T; t += tokens_each) {
    const int64_t tokens = std::min(tokens_each, T - t);
    launch_decode(context, p, false, t, tokens, ld, x);
    for (int64_t n = 0; n < N; n += rows_each) {
      const int64_t rows = std::min(rows_each, N - n);
      launch_decode(context, p, true, n, rows, ld, w);
      if (!device.cublas()->matmul({ActType::f16, rows, tokens, ld, w, ld, x, ld,
                                    p.rows.y + t * p.rows.ldy + n, p.rows.ldy, p.rows.accumulate},
                                   device.stream())) {
        CUDA_DOOR(t == 0 && n == 0, t, n);
        return false;
      }
    }
  }
  return true;
}

int64_t row_stride(int64_t K) { return (K + kPieceBytes - 1) / kPieceBytes * kPieceBytes; }

struct PackFp8Blocks {
  const uint8_t* codes;   // canonical rows
  const uint8_t* scales;  // canonical, [N, blocks]
  ScaleType scale_type;
  int N, K, interleaved_head, first_row, blocks;
  int64_t ld;
  uint8_t* to;
  float* to_scales;
};

// A block of threads a row; rows beyond the part's last have scales only, of zero.
__global__ void pack_rows(const PackFp8Blocks p) {
  const bool exists = static_cast<int>(blockIdx.x) < p.N;
  const int64_t stored = exists ? stored_row(blockIdx.x, p.interleaved_head) : 0;
  const int64_t n = p.first_row + static_cast<int64_t>(blockIdx.x);
  for (int64_t k = threadIdx.x; exists && k < p.ld; k += blockDim.x)
    p.to[n * p.ld + k] = k < p.K ? p.codes[stored * p.K + k] : 0;
  const int step = p.scale_type == ScaleType::f32 ? 4 : 2;
  for (int b = threadIdx.x; b < p.blocks; b += blockDim.x) {
    p.to_scales[scale_index(n, b, p.blocks)] =
        exists ? decode_scale(p.scales + (stored * p.blocks + b) * step, p.scale_type) : 0.0f;
  }
}

PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
  CudaDevice& device = cuda_device(context);
  PackedWeight packed;
  packed.encoding = parts.front().encoding;
  packed.K = parts.front().K;
  for (const Weight& part : parts) packed.N += part.N;
  packed.read_bytes = total_bytes(parts);
  const int64_t ld = row_stride(packed.K), blocks = packed.encoding.groups_per_row(packed.K);
  const int64_t padded = (packed.N + kTileRows - 1) / kTileRows * kTileRows;
  packed.data_bytes = static_cast<uint64_t>(packed.N * ld + padded * blocks * 4);
  std::byte* data = arena.take(packed.data_bytes);
  packed.data = data;
  int64_t n = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Weight& part = parts[i];
    const CanonicalBytes canonical = upload_canonical(device, part);
    const PackFp8Blocks pack{canonical.data,
                             canonical.scales,
                             part.encoding.scale_type,
                             static_cast<int>(part.N),
                             static_cast<int>(part.K),
                             static_cast<int>(part.interleaved_head),
                             static_cast<int>(n),
                             static_cast<int>(blocks),
                             ld,
                             reinterpret_cast<uint8_t*>(data),
                             reinterpret_cast<float*>(data + packed.N * ld)};
    const int64_t rows = i + 1 == parts.size() ? padded - n : part.N;
    pack_rows<<<static_cast<unsigned>(rows), 256, 0, device.stream()>>>(pack);
    CUDA_CHECK(cudaGetLastError());
    n += part.N;
  }
  device.synchronize();
  return packed;
}

const float* scales_of(const PackedWeight& w) {
  return reinterpret_cast<const float*>(w.data + w.N * row_stride(w.K));
}

void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
         bool accumulate) {
  CUDA_DOOR(x.type == ActType::fp8_block && x.K == w.K && ldy >= w.N, x.K, w.K, ldy, w.N);
  if (x.T == 0) return;
  Fp8Blocks p{};
  p.rows.w = reinterpret_cast<const uint8_t*>(w.data);
  p.rows.ldw = row_stride(w.K);
  p.rows.x = reinterpret_cast<const uint8_t*>(x.codes);
  p.rows.ldx = x.K_padded();
  p.rows.y = y;
  p.rows.ldy = ldy;
  p.rows.pieces = static_cast<int>(p.rows.ldw / kPieceBytes);
  p.rows.x_pieces_bytes = static_cast<int>(p.rows.ldx);
  p.rows.N = static_cast<int>(w.N);
  p.rows.T = static_cast<int>(x.T);
  p.rows.accumulate = accumulate;
  p.w_scales = scales_of(w);
  p.x_scales = x.scales;
  p.blocks = static_cast<int>(w.encoding.groups_per_row(w.K));
  p.step_tokens = p.rows.T;
  if (run_dense(context, p)) return;
  for (int left = p.step_tokens; left > 0; left -= kMostTokens) {
    p.rows.T = std::min(left, kMostTokens);
    (p.rows.T <= kTileTokens8 ? launch_fp8_block<1> : launch_fp8_block<2>)(context, p);
    p.rows.x += kMostTokens * p.rows.ldx;
    p.rows.y += kMostTokens * ldy;
    p.x_scales += kMostTokens;
  }
}

__global__ void gather_kernel(const uint8_t* w, int64_t ld, const float* scales, int blocks,
                              const int32_t* rows, int K, float* out) {
  launch_dependents();
  wait_for_inputs();
  const int64_t n = rows[blockIdx.x];
  for (int k = threadIdx.x; k < K; k += blockDim.x) {
    out[static_cast<int64_t>(blockIdx.x) * K + k] =
        e4m3_to_float(w[n * ld + k]) * scales[scale_index(n, k / kBlock, blocks)];
  }
}

void gather_rows(const Context& context, const PackedWeight& w, const int32_t* rows, int64_t T,
                 float* out) {
  if (T == 0) return;
  launch(context, gather_kernel, dim3(static_cast<unsigned>(T)), dim3(256), 0,
         reinterpret_cast<const uint8_t*>(w.data), row_stride(w.K), scales_of(w),
         static_cast<int>(w.encoding.groups_per_row(w.K)), rows, static_cast<int>(w.K), out);
}

}  // namespace

LinearKernel cuda_fp8_block_row(const char* name) {
  return {name,
          "cuda",
          Packing::fp8_block,
          ActType::fp8_block,
          prepack,
          run,
          nullptr,
          gather_rows,
          "from 65 on f16 weights through cuBLASLt"};
}

}  // namespace tandem
