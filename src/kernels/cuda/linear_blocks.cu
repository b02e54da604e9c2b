// y[T, N] = x[T, K] . W[N, K]^T for integer weights in groups: 4 bits (q4_0, q4_1, int4) and 8 bits
// (q8_0), against int8 activations with a scale for each 32 channels.
//
// W in pieces of 16 rows x 128 channels (4 bits) or x 64 (8 bits), 1024 bytes each, in the order in
// which the lanes of a warp read them: [N / 16][pieces][rows 0-7, 8-15][lane][16 bytes]. Lane 4 r +
// q holds row r, of each block of 32 channels the channels 8 q ... 8 q + 7; at 4 bits a word is one
// block, channels 8 q + i in its lower nibbles, 8 q + 4 + i in its upper ones. Scales (and minima,
// interleaved) beside, 16 bits each: [N / 16][pieces][16 rows][groups of a piece].
//
// One mma is one block of 32 channels, exact in int32; its sums are scaled into f32. Unsigned
// nibbles meet the activations as they are: the zero point, or the minimum, times the block's sum
// of activations comes on top. Splits and orders of sums are those of linear_rows.cu. Meant to be
// bound by bytes, at 4 bits it is bound by the instructions that scale. Lost so far: a ring of bulk
// copies as in linear_rows.cu (deep matrices 20 % faster, wide ones 20 % slower), and whole rows
// for each warp.
//
// A prompt's tokens go through cuBLASLt in f16: some rows of W at a time, and the activations'
// codes times their scales, each rounded once more, which is a hundredth of what their quantization
// rounded.
#include <algorithm>

#include "kernels/cuda/cublas.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/tile.cuh"
#include "kernels/rows.h"

namespace tandem {
namespace {

constexpr int kPieceBytes = 1024;
constexpr int kCublasTokens = 65;  // from here on decoding a matrix first costs less

struct Layout {
  int bits = 4;
  int group = 32;
  bool has_min = false;
  int64_t pieces = 0;  // of a row

  int64_t channels() const { return bits == 4 ? 128 : 64; }
  // Bytes of the scales (and minima) of a piece.
  int64_t scale_bytes() const { return kTileRows * (channels() / group) * (has_min ? 4 : 2); }
};

Layout layout_of(const Encoding& encoding, int64_t K) {
  Layout layout;
  layout.bits = encoding.bits();
  layout.group = static_cast<int>(encoding.group);
  layout.has_min = encoding.packing == Packing::q4_1;
  layout.pieces = (K + layout.channels() - 1) / layout.channels();
  return layout;
}

struct Blocks {
  const uint8_t* w;
  const uint8_t* scales;
  bool scales_are_bf16;
  const int8_t* x;  // [T, ldx]
  int64_t ldx;
  const float* x_scales;  // [blocks, T]
  const float* x_sums;    // [blocks, T]
  float* y;
  int64_t ldy;
  int pieces, blocks;  // of a row; blocks of 32 channels
  int N, T;
  bool accumulate;
};

__device__ __forceinline__ float to_float(uint32_t bits, bool is_bf16) {
  return is_bf16 ? __uint_as_float(bits << 16)
                 : __half2float(__ushort_as_half(static_cast<uint16_t>(bits)));
}

// The 16-bit numbers beside one row of a piece, in one load.
template <int kBytes>
__device__ __forceinline__ void load_scales(uint32_t (&out)[(kBytes + 3) / 4], const uint8_t* p) {
  if constexpr (kBytes == 16) {
    const uint4 v = *reinterpret_cast<const uint4*>(p);
    out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
  } else if constexpr (kBytes == 8) {
    const uint2 v = *reinterpret_cast<const uint2*>(p);
    out[0] = v.x, out[1] = v.y;
  } else if constexpr (kBytes == 4) {
    out[0] = *reinterpret_cast<const uint32_t*>(p);
  } else {
    out[0] = *reinterpret_cast<const uint16_t*>(p);
  }
}

// A piece as one lane holds it.
template <int kBits, int kGroup, bool kMin>
struct Piece {
  static constexpr int kChannels = kBits == 4 ? 128 : 64;
  static constexpr int kBlocks = kChannels / 32;
  static constexpr int kScaleBytes = kChannels / kGroup * (kMin ? 4 : 2);  // of a row
  uint4 codes[2];                                                          // rows r, r + 8
  uint32_t scales[2][(kScaleBytes + 3) / 4];

  __device__ __forceinline__ void load(const Blocks& p, int64_t tile, int piece, int lane) {
    const int64_t index = tile * p.pieces + piece;
    const uint8_t* from = p.w + index * kPieceBytes + lane * 16;
    codes[0] = load_stream(from);
    codes[1] = load_stream(from + 512);
    const uint8_t* beside = p.scales + (index * kTileRows + lane / 4) * kScaleBytes;
    load_scales<kScaleBytes>(scales[0], beside);
    load_scales<kScaleBytes>(scales[1], beside + 8 * kScaleBytes);
  }
  __device__ __forceinline__ float scale(int row, int block, bool is_bf16) const {
    const int i = block * 32 / kGroup * (kMin ? 2 : 1);
    return to_float(scales[row][i / 2] >> (i % 2 * 16) & 0xFFFF, is_bf16);
  }
  __device__ __forceinline__ float min(int row, int block, bool is_bf16) const {
    return kMin ? to_float(scales[row][block] >> 16, is_bf16) : -8.0f * scale(row, block, is_bf16);
  }
  __device__ __forceinline__ uint32_t low(int row, int block) const {
    return kBits == 4 ? word(codes[row], block) & 0x0F0F0F0F : word(codes[row], 2 * block);
  }
  __device__ __forceinline__ uint32_t high(int row, int block) const {
    return kBits == 4 ? word(codes[row], block) >> 4 & 0x0F0F0F0F : word(codes[row], 2 * block + 1);
  }
};

// Sums of whole numbers begin at this one, whose bits are those of 1.5 x 2^23: as long as they stay
// below 2^22 the bits of the sum are those of the float beside it, and a subtraction converts. The
// conversion instruction is four times slower.
constexpr int kBias = 0x4B400000;
__device__ __forceinline__ float unbiased(int sum) { return __int_as_float(sum) - 12582912.0f; }

// kOne: T is 1, and columns other than the first are not worth scaling.
template <int kBits, int kGroup, bool kMin, int kTiles, int kUnroll, bool kOne>
__global__ void __launch_bounds__(256) blocks_kernel(const Blocks p) {
  using P = Piece<kBits, kGroup, kMin>;
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
  for (int j = 0; j < kTiles; ++j) x[j] = p.x + min(t0 + j * 8 + r, p.T - 1) * p.ldx + q * 8;
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
        const uint32_t a0 = now[u].low(0, b), a1 = now[u].low(1, b);
        const uint32_t a2 = now[u].high(0, b), a3 = now[u].high(1, b);
        const float s0 = now[u].scale(0, b, p.scales_are_bf16),
                    s1 = now[u].scale(1, b, p.scales_are_bf16);
        float m0 = 0, m1 = 0;
        if constexpr (kBits == 4) {
          m0 = now[u].min(0, b, p.scales_are_bf16), m1 = now[u].min(1, b, p.scales_are_bf16);
        }
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          const uint2 v = *reinterpret_cast<const uint2*>(x[j] + block * 32);
          int c[4] = {kBias, kBias, kBias, kBias};
          MmaS8::run(c, a0, a1, a2, a3, v.x, v.y);
#pragma unroll
          for (int column = 0; column < (kOne ? 1 : 2); ++column) {
            const int i = block * p.T + (kOne ? 0 : min(t0 + j * 8 + 2 * q + column, p.T - 1));
            const float xs = p.x_scales[i];
            sums[j][column] += unbiased(c[column]) * (s0 * xs);
            sums[j][column + 2] += unbiased(c[column + 2]) * (s1 * xs);
            if constexpr (kBits == 4) {
              const float total = p.x_sums[i];
              sums[j][column] += m0 * total;
              sums[j][column + 2] += m1 * total;
            }
          }
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

template <int kBits, int kGroup, bool kMin, int kTiles, int kUnroll, bool kOne>
void launch_blocks(const Context& context, const Blocks& p) {
  const int warps = std::clamp(p.pieces / 2, 1, 8);
  launch(context, blocks_kernel<kBits, kGroup, kMin, kTiles, kUnroll, kOne>,
         dim3(blocks_for(p.N, kTileRows), blocks_for(p.T, kTiles * 8)),
         dim3(static_cast<unsigned>(warps * 32)), tile_bytes(warps), p);
}

template <int kBits, int kGroup, bool kMin>
bool run_cublas(const Context& context, const Blocks& p);

template <int kBits, int kGroup, bool kMin>
void launch_blocks(const Context& context, const Blocks& p) {
  if (run_cublas<kBits, kGroup, kMin>(context, p)) return;
  if (p.T == 1) {
    launch_blocks<kBits, kGroup, kMin, 1, 2, true>(context, p);
  } else if (p.T <= 8) {
    launch_blocks<kBits, kGroup, kMin, 1, 2, false>(context, p);
  } else if (p.T <= 16) {
    launch_blocks<kBits, kGroup, kMin, 2, 1, false>(context, p);
  } else {
    launch_blocks<kBits, kGroup, kMin, 4, 1, false>(context, p);
  }
}

// A part of a weight as its file has it, and where its rows go.
struct Canonical {
  const uint8_t* data;
  const uint8_t* scales;  // int4_group only
  Packing packing;
  ScaleType scale_type;
  int64_t row_bytes, groups;
  int N, K, interleaved_head;
  uint8_t* to;
  uint8_t* to_scales;
  int first_row, pieces, group;

  __device__ int code(int64_t stored, int k) const {
    if (k >= K) return 0;
    const uint8_t* row = data + stored * row_bytes;
    const int j = k % 32;
    if (packing == Packing::q8_0) return row[k / 32 * 34 + 2 + j];
    if (packing == Packing::int4_group) return row[k / 2] >> (k % 2 * 4) & 15;
    const int header = packing == Packing::q4_1 ? 4 : 2;
    return row[k / 32 * (header + 16) + header + j % 16] >> (j / 16 * 4) & 15;
  }
  __device__ uint16_t number(int64_t stored, int g, bool is_min) const {
    if (g >= groups) return 0;
    const uint8_t* p = packing == Packing::int4_group ? scales + (stored * groups + g) * 2
                                                      : data + stored * row_bytes +
                                                            g * (packing == Packing::q8_0   ? 34
                                                                 : packing == Packing::q4_1 ? 20
                                                                                            : 18);
    return reinterpret_cast<const uint16_t*>(p)[is_min ? 1 : 0];
  }
};

// One block of threads a row; a thread writes 16 bytes of codes, then some of the scales.
template <int kBits, bool kMin>
__global__ void pack_rows(const Canonical p) {
  constexpr int kChannels = kBits == 4 ? 128 : 64;
  const int n = p.first_row + blockIdx.x;
  const int64_t stored = stored_row(blockIdx.x, p.interleaved_head), tile = n / kTileRows;
  const int row = n % kTileRows;
  for (int i = threadIdx.x; i < p.pieces * 4; i += blockDim.x) {
    const int piece = i / 4, q = i % 4;
    uint8_t bytes[16];
    for (int at = 0; at < 16; ++at) {
      if constexpr (kBits == 4) {
        const int k = piece * kChannels + at / 4 * 32 + q * 8 + at % 4;
        bytes[at] = static_cast<uint8_t>(p.code(stored, k) | p.code(stored, k + 4) << 4);
      } else {
        bytes[at] =
            static_cast<uint8_t>(p.code(stored, piece * kChannels + at / 8 * 32 + q * 8 + at % 8));
      }
    }
    uint8_t* to =
        p.to + (tile * p.pieces + piece) * kPieceBytes + row / 8 * 512 + (row % 8 * 4 + q) * 16;
    for (int at = 0; at < 16; ++at) to[at] = bytes[at];
  }
  const int groups = kChannels / p.group;
  for (int i = threadIdx.x; i < p.pieces * groups; i += blockDim.x) {
    const int64_t index = ((tile * p.pieces + i / groups) * kTileRows + row) * groups + i % groups;
    auto* to = reinterpret_cast<uint16_t*>(p.to_scales);
    if constexpr (kMin) {
      to[2 * index] = p.number(stored, i, false);
      to[2 * index + 1] = p.number(stored, i, true);
    } else {
      to[index] = p.number(stored, i, false);
    }
  }
}

void check_encoding(const Encoding& encoding) {
  const bool is_int4 = encoding.packing == Packing::int4_group;
  if (is_int4 && encoding.group != 32 && encoding.group != 64 && encoding.group != 128) {
    cuda_refuse("cuda runs int4 in groups of 32, 64 and 128; found groups of", encoding.group);
  }
  if (is_int4 && encoding.scale_type == ScaleType::f32) {
    cuda_refuse("cuda runs int4 with scales of 16 bits; found bits:", 32);
  }
}

uint64_t codes_bytes(const Layout& layout, int64_t N) {
  return static_cast<uint64_t>((N + kTileRows - 1) / kTileRows * layout.pieces * kPieceBytes);
}

void pack_part(CudaDevice& device, const Weight& part, const Layout& layout, std::byte* data,
               uint64_t codes, int64_t first_row) {
  const CanonicalBytes canonical = upload_canonical(device, part);
  Canonical p{};
  p.data = canonical.data;
  p.scales = canonical.scales;
  p.packing = part.encoding.packing;
  p.scale_type = part.encoding.scale_type;
  p.row_bytes = static_cast<int64_t>(part.encoding.row_bytes(part.K));
  p.groups = part.encoding.groups_per_row(part.K);
  p.N = static_cast<int>(part.N);
  p.K = static_cast<int>(part.K);
  p.interleaved_head = static_cast<int>(part.interleaved_head);
  p.to = reinterpret_cast<uint8_t*>(data);
  p.to_scales = p.to + codes;
  p.first_row = static_cast<int>(first_row);
  p.pieces = static_cast<int>(layout.pieces);
  p.group = layout.group;
  const auto kernel = layout.bits == 8 ? pack_rows<8, false>
                      : layout.has_min ? pack_rows<4, true>
                                       : pack_rows<4, false>;
  kernel<<<static_cast<unsigned>(part.N), 128, 0, device.stream()>>>(p);
  CUDA_CHECK(cudaGetLastError());
}

PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
  CudaDevice& device = cuda_device(context);
  PackedWeight packed;
  packed.encoding = parts.front().encoding;
  check_encoding(packed.encoding);
  packed.K = parts.front().K;
  for (const Weight& part : parts) packed.N += part.N;
  packed.read_bytes = total_bytes(parts);
  const Layout layout = layout_of(packed.encoding, packed.K);
  const uint64_t codes = codes_bytes(layout, packed.N);
  packed.data_bytes = codes + codes / kPieceBytes * static_cast<uint64_t>(layout.scale_bytes());
  std::byte* data = arena.take(packed.data_bytes);
  packed.data = data;
  int64_t n = 0;
  for (const Weight& part : parts) {
    pack_part(device, part, layout, data, codes, n);
    n += part.N;
  }
  device.synchronize();
  return packed;
}

// out[t, k] = code * scale.
__global__ void decode_activations(const int8_t* codes, const float* scales, int64_t ld, int64_t T,
                                   __half* out) {
  launch_dependents();
  wait_for_inputs();
  const int64_t t = blockIdx.y;
  const int64_t k = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
  if (k >= ld) return;
  const char4 c = *reinterpret_cast<const char4*>(codes + t * ld + k);
  const float scale = scales[k / kActBlock * T + t];
  __half2* to = reinterpret_cast<__half2*>(out + t * ld + k);
  to[0] = __floats2half2_rn(c.x * scale, c.y * scale);
  to[1] = __floats2half2_rn(c.z * scale, c.w * scale);
}

// One warp decodes a piece: 16 rows of out [rows, ld] from tile `first_tile` on.
template <int kBits, int kGroup, bool kMin>
__global__ void decode_pieces(const Blocks p, int64_t first_tile, int ld, __half* out) {
  using P = Piece<kBits, kGroup, kMin>;
  launch_dependents();
  wait_for_inputs();
  const int lane = threadIdx.x % 32, piece = blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32;
  if (piece >= p.pieces) return;
  P now;
  now.load(p, first_tile + blockIdx.x, piece, lane);
#pragma unroll
  for (int b = 0; b < P::kBlocks; ++b) {
    const int k = piece * P::kChannels + b * 32 + lane % 4 * 8;
    if (k >= ld) break;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const float scale = now.scale(row, b, p.scales_are_bf16);
      const float min = kBits == 4 ? now.min(row, b, p.scales_are_bf16) : 0.0f;
      const uint32_t words[] = {now.low(row, b), now.high(row, b)};
      __half2 values[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t pair = words[i / 2] >> (i % 2 * 16);
        values[i] = __floats2half2_rn(
            static_cast<float>(static_cast<int8_t>(pair & 0xFF)) * scale + min,
            static_cast<float>(static_cast<int8_t>(pair >> 8 & 0xFF)) * scale + min);
      }
      const int64_t n = static_cast<int64_t>(blockIdx.x) * kTileRows + lane / 4 + 8 * row;
      *reinterpret_cast<uint4*>(out + n * ld + k) = *reinterpret_cast<const uint4*>(values);
    }
  }
}

// False when cuBLASLt is not there or does not take the shape.
template <int kBits, int kGroup, bool kMin>
bool run_cublas(const Context& context, const Blocks& p) {
  CudaDevice& device = cuda_device(context);
  if (device.cublas() == nullptr || p.T < kCublasTokens) return false;
  const int64_t ld = p.ldx, half = CudaDevice::kWorkspaceBytes / 2;
  const int64_t most_tokens = half / (ld * 2), most_rows = half / (ld * 2) / kTileRows * kTileRows;
  auto* x = reinterpret_cast<__half*>(device.workspace());
  auto* w = reinterpret_cast<__half*>(device.workspace() + half);
  for (int64_t t = 0; t < p.T; t += most_tokens) {
    const int64_t tokens = std::min<int64_t>(most_tokens, p.T - t);
    launch(context, decode_activations,
           dim3(blocks_for(ld, 4 * 128), static_cast<unsigned>(tokens)), dim3(128), 0, p.x + t * ld,
           p.x_scales + t, ld, static_cast<int64_t>(p.T), x);
    for (int64_t n = 0; n < p.N; n += most_rows) {
      const int64_t rows = std::min<int64_t>(most_rows, p.N - n);
      launch(context, decode_pieces<kBits, kGroup, kMin>,
             dim3(blocks_for(rows, kTileRows), blocks_for(p.pieces, 4)), dim3(128), 0, p,
             n / kTileRows, static_cast<int>(ld), w);
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

void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
         bool accumulate) {
  CUDA_DOOR(x.type == ActType::int8_block && x.K == w.K && ldy >= w.N, x.K, w.K, ldy, w.N);
  if (x.T == 0) return;
  const Layout layout = layout_of(w.encoding, w.K);
  const auto* data = reinterpret_cast<const uint8_t*>(w.data);
  Blocks p{};
  p.w = data;
  p.scales = data + codes_bytes(layout, w.N);
  p.scales_are_bf16 = w.encoding.scale_type == ScaleType::bf16;
  p.x = x.codes;
  p.ldx = x.K_padded();
  p.x_scales = x.scales;
  p.x_sums = x.sums;
  p.y = y;
  p.ldy = ldy;
  p.pieces = static_cast<int>(layout.pieces);
  p.blocks = static_cast<int>(x.K_padded() / kActBlock);
  p.N = static_cast<int>(w.N);
  p.T = static_cast<int>(x.T);
  p.accumulate = accumulate;
  if (layout.bits == 8) return launch_blocks<8, 32, false>(context, p);
  if (layout.has_min) return launch_blocks<4, 32, true>(context, p);
  if (layout.group == 32) return launch_blocks<4, 32, false>(context, p);
  if (layout.group == 64) return launch_blocks<4, 64, false>(context, p);
  launch_blocks<4, 128, false>(context, p);
}

template <int kBits, bool kMin>
__global__ void gather_kernel(const uint8_t* w, const uint8_t* all_scales, bool is_bf16, int pieces,
                              int group, const int32_t* rows, int K, float* out) {
  constexpr int kChannels = kBits == 4 ? 128 : 64;
  launch_dependents();
  wait_for_inputs();
  const int64_t n = rows[blockIdx.x], tile = n / kTileRows;
  const int row = static_cast<int>(n % kTileRows), groups = kChannels / group;
  for (int k = threadIdx.x; k < K; k += blockDim.x) {
    const int in_piece = k % kChannels, q = in_piece % 32 / 8, i = in_piece % 8;
    const int64_t piece = tile * pieces + k / kChannels;
    const uint8_t* lane = w + piece * kPieceBytes + row / 8 * 512 + (row % 8 * 4 + q) * 16;
    const int64_t number = (piece * kTileRows + row) * groups + in_piece / group;
    const auto* scales = reinterpret_cast<const uint16_t*>(all_scales);
    const float scale = to_float(scales[kMin ? 2 * number : number], is_bf16);
    float value;
    if constexpr (kBits == 8) {
      value = static_cast<float>(static_cast<int8_t>(lane[in_piece / 32 * 8 + i])) * scale;
    } else {
      const int code = lane[in_piece / 32 * 4 + i % 4] >> (i / 4 * 4) & 15;
      // Rounded as the encoding's own decoder does.
      value = kMin ? __fadd_rn(__fmul_rn(scale, static_cast<float>(code)),
                               to_float(scales[2 * number + 1], is_bf16))
                   : static_cast<float>(code - 8) * scale;
    }
    out[static_cast<int64_t>(blockIdx.x) * K + k] = value;
  }
}

void gather_rows(const Context& context, const PackedWeight& w, const int32_t* rows, int64_t T,
                 float* out) {
  const Layout layout = layout_of(w.encoding, w.K);
  const auto* data = reinterpret_cast<const uint8_t*>(w.data);
  const auto kernel = layout.bits == 8 ? gather_kernel<8, false>
                      : layout.has_min ? gather_kernel<4, true>
                                       : gather_kernel<4, false>;
  launch(context, kernel, dim3(static_cast<unsigned>(T)), dim3(256), 0, data,
         data + codes_bytes(layout, w.N), w.encoding.scale_type == ScaleType::bf16,
         static_cast<int>(layout.pieces), layout.group, rows, static_cast<int>(w.K), out);
}

}  // namespace

LinearKernel cuda_blocks_row(const char* name, Packing packing) {
  return {name, "cuda", packing, ActType::int8_block, prepack, run, nullptr, gather_rows};
}

}  // namespace tandem
