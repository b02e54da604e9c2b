// y[T, N] = x[T, K] . W[N, K]^T for integer weights in groups, against int8 activations with a scale
// for each 32 channels; what the pieces of an encoding share.
//
// W in pieces of 16 rows x P::kChannels, in the order in which the lanes of a warp read them: codes
// [N / 16][pieces][P::kCodeBytes], then what stands beside them, [N / 16][pieces][P::kBesideBytes].
// Lane 4 r + q has of the rows r and r + 8 eight channels of each block of 32, in two words of signed
// bytes, `low` and `high`.
//
// One mma is one block of 32 channels, or half of one where 16 share a scale, exact in int32; its
// sums are scaled into f32. Where a piece has minimums (or unsigned codes with a zero point) the
// block's sum of activations comes on top. A block of threads has 16 rows, its warps share K: a
// token's result does not depend on the tokens beside it. Meant to be bound by bytes, at 4 bits it is
// bound by the instructions that scale.
//
// A prompt's tokens go through cuBLASLt in f16: some rows of W at a time, and the activations'
// codes times their scales, each rounded once more, which is a hundredth of what their quantization
// rounded.
//
// A piece P has, besides the sizes,
//   kHalves            two scales a block, of 16 channels each
//   kHasMin            min(row, block) x the sum of activations comes on top
//   load, low, high, scale, min
//   channel(q, word)   the first of the four channels of a word, in its block
//   value(code, row, block, half)   rounded as the encoding's own decoder does
//   pack               a row's share of a piece from the file's bytes
#pragma once

#include <algorithm>

#include "kernels/cuda/cublas.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tile.cuh"
#include "kernels/rows.h"

namespace tandem {

constexpr int64_t kBlocksCublasTokens = 65;  // from here on decoding a matrix first costs less

struct Blocks {
  const uint8_t* w;
  const uint8_t* beside;
  const int8_t* x;  // [T, ldx]
  int64_t ldx;
  const float* x_scales;  // [blocks, T]
  const float* x_sums;    // [blocks, T]
  float* y;
  int64_t ldy;
  int pieces, blocks;  // of a row; blocks of 32 channels
  int N, T;
  bool accumulate;
  // Of groups that are no part of a piece (linear_codes.cu).
  const uint8_t* zeros;
  int K, groups, group;
  bool scales_are_bf16;
};

// Sums of whole numbers begin at this one, whose bits are those of 1.5 x 2^23: as long as they stay
// below 2^22 the bits of the sum are those of the float beside it, and a subtraction converts. The
// conversion instruction is four times slower.
constexpr int kBias = 0x4B400000;
__device__ __forceinline__ float unbiased(int sum) { return __int_as_float(sum) - 12582912.0f; }

// sums += block b of a piece, `block` of the row, times 8 tokens from t0 on. kOne: T is 1, and
// columns other than the first are not worth scaling.
template <typename P, bool kOne>
__device__ __forceinline__ void add_block(const Blocks& p, const P& now, int b, int block,
                                          const int8_t* x, int t0, int q, float (&sums)[4]) {
  int c[P::kHalves ? 2 : 1][4];
#pragma unroll
  for (auto& half : c) half[0] = half[1] = half[2] = half[3] = kBias;
  if constexpr (P::kHalves) {
    MmaS8K16::run(c[0], now.low(0, b), now.low(1, b),
                  *reinterpret_cast<const uint32_t*>(x + block * 32 + P::channel(q, 0)));
    MmaS8K16::run(c[1], now.high(0, b), now.high(1, b),
                  *reinterpret_cast<const uint32_t*>(x + block * 32 + P::channel(q, 1)));
  } else {
    const uint2 v = *reinterpret_cast<const uint2*>(x + block * 32 + P::channel(q, 0));
    MmaS8::run(c[0], now.low(0, b), now.low(1, b), now.high(0, b), now.high(1, b), v.x, v.y);
  }
#pragma unroll
  for (int column = 0; column < (kOne ? 1 : 2); ++column) {
    const int i = block * p.T + (kOne ? 0 : min(t0 + 2 * q + column, p.T - 1));
    const float xs = p.x_scales[i];
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      float& sum = sums[column + 2 * row];
#pragma unroll
      for (int half = 0; half < (P::kHalves ? 2 : 1); ++half) {
        sum += unbiased(c[half][column + 2 * row]) * (now.scale(row, b, half) * xs);
      }
      if constexpr (P::kHasMin) sum += now.min(row, b) * p.x_sums[i];
    }
  }
}

template <typename P, int kTiles, int kUnroll, bool kOne>
__global__ void __launch_bounds__(256) blocks_kernel(const Blocks p) {
  extern __shared__ float shared[];
  launch_dependents();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int r = lane / 4, q = lane % 4;
  const int64_t tile = blockIdx.x;
  const int t0 = blockIdx.y * kTiles * 8;
  P next[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    if (warp + u * warps < p.pieces) next[u].load(p, tile, warp + u * warps, lane);
  }
  wait_for_inputs();

  const int8_t* x[kTiles];
#pragma unroll
  for (int j = 0; j < kTiles; ++j) x[j] = p.x + min(t0 + j * 8 + r, p.T - 1) * p.ldx;
  float sums[kTiles][4] = {};
  for (int first = warp; first < p.pieces; first += warps * kUnroll) {
    P now[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      now[u] = next[u];
      const int ahead = first + (kUnroll + u) * warps;
      if (ahead < p.pieces) next[u].load(p, tile, ahead, lane);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int piece = first + u * warps;
      if (piece >= p.pieces) break;
#pragma unroll
      for (int b = 0; b < P::kBlocks; ++b) {
        // Beyond the row weights and scales are zero, so it does not matter what they meet; a
        // branch here would keep the blocks' loads from running together.
        const int block = min(piece * P::kBlocks + b, p.blocks - 1);
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          add_block<P, kOne>(p, now[u], b, block, x[j], t0 + j * 8, q, sums[j]);
        }
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
    const int first = t0 + j * 8, n0 = blockIdx.x * kTileRows;
    if (first >= p.T) break;
    sum_tile(sums[j], shared, warps, [&](int t, int n, float sum) {
      if (first + t >= p.T || n0 + n >= p.N) return;
      float* out = p.y + (first + t) * p.ldy + n0 + n;
      *out = p.accumulate ? *out + sum : sum;
    });
  }
}

// out[t, k] = code * scale. In linear_blocks.cu.
void decode_block_activations(const Context& context, const int8_t* codes, const float* scales,
                              int64_t ld, int64_t T, int64_t tokens, uint16_t* out);

// One warp decodes a piece: 16 rows of out [rows, ld] from tile `first_tile` on.
template <typename P>
__global__ void decode_pieces(const Blocks p, int64_t first_tile, int ld, __half* out) {
  launch_dependents();
  wait_for_inputs();
  const int lane = threadIdx.x % 32, piece = blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32;
  if (piece >= p.pieces) return;
  P now;
  now.load(p, first_tile + blockIdx.x, piece, lane);
#pragma unroll
  for (int b = 0; b < P::kBlocks; ++b) {
    if (piece * P::kChannels + b * 32 >= ld) break;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int64_t n = static_cast<int64_t>(blockIdx.x) * kTileRows + lane / 4 + 8 * row;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t codes = half == 0 ? now.low(row, b) : now.high(row, b);
        float v[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          v[i] = now.value(static_cast<int8_t>(codes >> 8 * i), row, b, P::kHalves ? half : 0);
        }
        const __half2 pairs[] = {__floats2half2_rn(v[0], v[1]), __floats2half2_rn(v[2], v[3])};
        *reinterpret_cast<uint2*>(out + n * ld + piece * P::kChannels + b * 32 +
                                  P::channel(lane % 4, half)) =
            *reinterpret_cast<const uint2*>(pairs);
      }
    }
  }
}

// False when cuBLASLt is not there or does not take the shape.
template <typename P>
bool run_blocks_dense(const Context& context, const Blocks& p) {
  CudaDevice& device = cuda_device(context);
  if (device.cublas() == nullptr || p.T < kBlocksCublasTokens) return false;
  const int64_t ld = p.ldx, half = CudaDevice::kWorkspaceBytes / 2;
  const int64_t most_tokens = half / (ld * 2), most_rows = half / (ld * 2) / kTileRows * kTileRows;
  auto* x = reinterpret_cast<uint16_t*>(device.workspace());
  auto* w = reinterpret_cast<__half*>(device.workspace() + half);
  for (int64_t t = 0; t < p.T; t += most_tokens) {
    const int64_t tokens = std::min<int64_t>(most_tokens, p.T - t);
    decode_block_activations(context, p.x + t * ld, p.x_scales + t, ld, p.T, tokens, x);
    for (int64_t n = 0; n < p.N; n += most_rows) {
      const int64_t rows = std::min<int64_t>(most_rows, p.N - n);
      launch(context, decode_pieces<P>, dim3(blocks_for(rows, kTileRows), blocks_for(p.pieces, 4)),
             dim3(128), 0, p, n / kTileRows, static_cast<int>(ld), w);
      if (!device.cublas()->matmul({ActType::f16, rows, tokens, ld, w, ld, x, ld,
                                    p.y + t * p.ldy + n, p.ldy, p.accumulate},
                                   device.stream())) {
        CUDA_DOOR(t == 0 && n == 0, t, n);
        return false;
      }
    }
  }
  return true;
}

template <typename P, int kTiles, int kUnroll, bool kOne>
void launch_blocks(const Context& context, const Blocks& p) {
  const int warps = std::clamp(p.pieces / 2, 1, 8);
  launch(context, blocks_kernel<P, kTiles, kUnroll, kOne>,
         dim3(blocks_for(p.N, kTileRows), blocks_for(p.T, kTiles * 8)),
         dim3(static_cast<unsigned>(warps * 32)), tile_bytes(warps), p);
}

template <typename P>
int block_pieces(int64_t K) {
  return static_cast<int>((K + P::kChannels - 1) / P::kChannels);
}
template <typename P>
uint64_t block_codes_bytes(int64_t N, int64_t K) {
  return static_cast<uint64_t>((N + kTileRows - 1) / kTileRows * block_pieces<P>(K) *
                               P::kCodeBytes);
}

template <typename P>
Blocks blocks_of(const PackedWeight& w) {
  Blocks p{};
  p.w = reinterpret_cast<const uint8_t*>(w.data);
  p.beside = p.w + block_codes_bytes<P>(w.N, w.K);
  p.pieces = block_pieces<P>(w.K);
  p.N = static_cast<int>(w.N);
  p.K = static_cast<int>(w.K);
  return p;
}

// p: blocks_of(w), with what the piece wants besides.
template <typename P>
void run_blocks(const Context& context, Blocks p, const PackedWeight& w, const Activations& x,
                float* y, int64_t ldy, bool accumulate) {
  CUDA_DOOR(x.type == ActType::int8_block && x.K == w.K && ldy >= w.N, x.K, w.K, ldy, w.N);
  if (x.T == 0) return;
  p.x = x.codes;
  p.ldx = x.K_padded();
  p.x_scales = x.scales;
  p.x_sums = x.sums;
  p.y = y;
  p.ldy = ldy;
  p.blocks = static_cast<int>(x.K_padded() / kActBlock);
  p.T = static_cast<int>(x.T);
  p.accumulate = accumulate;
  if (run_blocks_dense<P>(context, p)) return;
  // A piece of 256 channels takes twice the registers.
  constexpr int kAhead = P::kChannels <= 128 ? 2 : 1;
  if (p.T == 1) return launch_blocks<P, 1, kAhead, true>(context, p);
  if (p.T <= 8) return launch_blocks<P, 1, kAhead, false>(context, p);
  if (p.T <= 16) return launch_blocks<P, 2, 1, false>(context, p);
  launch_blocks<P, 4, 1, false>(context, p);
}

// A part of a weight as its file has it, one row of it: its bytes, null beyond the part's last row.
struct BlockSource {
  const uint8_t* data;
  int64_t row_bytes;
  int N, K, interleaved_head;

  __device__ const uint8_t* row(int n) const {
    return n < N ? data + stored_row(n, interleaved_head) * row_bytes : nullptr;
  }
};

// A block of threads a row, a thread an eighth of a piece.
template <typename P>
__global__ void pack_blocks(const BlockSource p, int first_row, int pieces, uint8_t* codes,
                            uint8_t* beside) {
  const int n = first_row + blockIdx.x;
  const uint8_t* row = p.row(blockIdx.x);
  for (int i = threadIdx.x; i < pieces * 4; i += blockDim.x) {
    const int64_t index = static_cast<int64_t>(n / kTileRows) * pieces + i / 4;
    P::pack(row, p.K, i / 4, n % kTileRows, i % 4, codes + index * P::kCodeBytes,
            beside + index * P::kBesideBytes);
  }
}

template <typename P>
PackedWeight prepack_blocks(const Context& context, const std::vector<Weight>& parts,
                            Arena& arena) {
  CudaDevice& device = cuda_device(context);
  PackedWeight packed;
  packed.encoding = parts.front().encoding;
  packed.K = parts.front().K;
  for (const Weight& part : parts) packed.N += part.N;
  packed.read_bytes = total_bytes(parts);
  const uint64_t codes = block_codes_bytes<P>(packed.N, packed.K);
  packed.data_bytes = codes + codes / P::kCodeBytes * P::kBesideBytes;
  std::byte* data = arena.take(packed.data_bytes);
  packed.data = data;
  auto* to = reinterpret_cast<uint8_t*>(data);
  const int64_t padded = (packed.N + kTileRows - 1) / kTileRows * kTileRows;
  int64_t n = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Weight& part = parts[i];
    const BlockSource source{upload_canonical(device, part).data,
                             static_cast<int64_t>(part.encoding.row_bytes(part.K)),
                             static_cast<int>(part.N), static_cast<int>(part.K),
                             static_cast<int>(part.interleaved_head)};
    const int64_t rows = i + 1 == parts.size() ? padded - n : part.N;
    pack_blocks<P><<<static_cast<unsigned>(rows), 128, 0, device.stream()>>>(
        source, static_cast<int>(n), block_pieces<P>(part.K), to, to + codes);
    CUDA_CHECK(cudaGetLastError());
    n += part.N;
  }
  device.synchronize();
  return packed;
}

// One warp decodes a piece and keeps one row of its 16.
template <typename P>
__global__ void gather_blocks(const Blocks p, const int32_t* rows, const int32_t* columns,
                              float* out) {
  launch_dependents();
  wait_for_inputs();
  const int n = rows[blockIdx.x], row = n % kTileRows, lane = threadIdx.x % 32;
  for (int piece = threadIdx.x / 32; piece < p.pieces; piece += blockDim.x / 32) {
    P now;
    now.load(p, n / kTileRows, piece, lane);
    if (lane / 4 != row % 8) continue;
    for (int b = 0; b < P::kBlocks; ++b) {
      if (piece * P::kChannels + b * 32 >= p.K) break;
      for (int half = 0; half < 2; ++half) {
        const uint32_t codes = half == 0 ? now.low(row / 8, b) : now.high(row / 8, b);
        const int k = piece * P::kChannels + b * 32 + P::channel(lane % 4, half);
        for (int i = 0; i < 4; ++i) {
          const int to = columns != nullptr ? columns[k + i] : k + i;
          out[static_cast<int64_t>(blockIdx.x) * p.K + to] =
              now.value(static_cast<int8_t>(codes >> 8 * i), row / 8, b, P::kHalves ? half : 0);
        }
      }
    }
  }
}

template <typename P>
void gather_block_rows(const Context& context, const Blocks& p, const PackedWeight& w,
                       const int32_t* rows, int64_t T, float* out) {
  if (T == 0) return;
  launch(context, gather_blocks<P>, dim3(static_cast<unsigned>(T)), dim3(256), 0, p, rows,
         w.columns, out);
}

constexpr const char* kBlocksManyTokens = "from 65 on f16 weights through cuBLASLt";

template <typename P>
void run_blocks_row(const Context& context, const PackedWeight& w, const Activations& x, float* y,
                    int64_t ldy, bool accumulate) {
  run_blocks<P>(context, blocks_of<P>(w), w, x, y, ldy, accumulate);
}
template <typename P>
void gather_blocks_row(const Context& context, const PackedWeight& w, const int32_t* rows,
                       int64_t T, float* out) {
  gather_block_rows<P>(context, blocks_of<P>(w), w, rows, T, out);
}

template <typename P>
LinearKernel blocks_row(const char* name, Packing packing) {
  return {name,
          "cuda",
          packing,
          ActType::int8_block,
          prepack_blocks<P>,
          run_blocks_row<P>,
          nullptr,
          gather_blocks_row<P>,
          kBlocksManyTokens};
}

}  // namespace tandem
