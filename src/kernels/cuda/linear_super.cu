// GGUF's K-quants q4_k and q6_k, the file's bits in another order. The linear itself is that of
// blocks.cuh.
//
// Pieces of 16 rows x 256 channels, a super-block each. Nibbles [2][rows 0-7, 8-15][lane][16 bytes]: a
// word is one block of 32 channels, the channels of `low` in its lower nibbles, of `high` in its
// upper ones.
//   q4_k  beside: for each row d, dmin and eight times 12 bits, a scale and above it a minimum.
//         Lane 4 r + q has of a block the channels 8 q ... 8 q + 7.
//   q6_k  after the nibbles the upper two bits of each code [rows 0-7, 8-15][lane][16 bytes]: byte i of
//         word w has those of channel i of low and high of block 2 w and of low and high of block
//         2 w + 1. The upper one is inverted, so that the six bits at the top of a byte are 4 x (code -
//         32). Beside: 16 scales of each row, less -128, then d of each.
//         16 channels share a scale: lane 4 r + q has the channels 4 q ... and 16 + 4 q ... of a block.
#include "kernels/cuda/blocks.cuh"
#include "kernels/cuda/linear_rows.h"

namespace tandem {
namespace {

constexpr int kSuper = 256;

__device__ __forceinline__ float half_at(const uint8_t* p) {
  return __half2float(*reinterpret_cast<const __half*>(p));
}

// A whole number below 2^23, without the slow conversion.
__device__ __forceinline__ float small_to_float(uint32_t v) {
  return __uint_as_float(0x4B000000 | v) - 8388608.0f;
}

struct Nibbles {
  static constexpr int kChannels = kSuper;
  static constexpr int kBlocks = kSuper / 32;
  static constexpr int kNibbleBytes = 2048;
  uint4 nibbles[2][2];  // [rows r, r + 8][blocks 0-3, 4-7]

  __device__ __forceinline__ void load_nibbles(const uint8_t* piece, int lane) {
#pragma unroll
    for (int i = 0; i < 4; ++i) nibbles[i % 2][i / 2] = load_stream(piece + i * 512 + lane * 16);
  }
  __device__ __forceinline__ uint32_t nibble_word(int row, int block) const {
    return word(nibbles[row][block / 4], block % 4);
  }
  static __device__ __forceinline__ uint8_t* word_at(uint8_t* piece, int row, int q, int block) {
    return piece + (block / 4 * 2 + row / 8) * 512 + (row % 8 * 4 + q) * 16 + block % 4 * 4;
  }
};

struct Q4K : Nibbles {
  static constexpr int kCodeBytes = kNibbleBytes, kBesideBytes = kTileRows * 16, kFileBlock = 144;
  static constexpr bool kHalves = false, kHasMin = true;
  uint4 head[2];

  __device__ __forceinline__ void load(const Blocks& p, int64_t tile, int piece, int lane) {
    const int64_t index = tile * p.pieces + piece;
    load_nibbles(p.w + index * kCodeBytes, lane);
    const uint8_t* beside = p.beside + index * kBesideBytes + lane / 4 * 16;
    head[0] = *reinterpret_cast<const uint4*>(beside);
    head[1] = *reinterpret_cast<const uint4*>(beside + 8 * 16);
  }
  __device__ __forceinline__ uint32_t low(int row, int block) const {
    return nibble_word(row, block) & 0x0F0F0F0F;
  }
  __device__ __forceinline__ uint32_t high(int row, int block) const {
    return nibble_word(row, block) >> 4 & 0x0F0F0F0F;
  }
  // The scale, and six bits above it the minimum.
  __device__ __forceinline__ uint32_t pair(int row, int block) const {
    const int bit = 12 * block, i = bit / 32;
    const uint32_t lower = word(head[row], 1 + i), upper = word(head[row], i < 2 ? 2 + i : 3);
    return __funnelshift_r(lower, upper, bit % 32);
  }
  __device__ __forceinline__ float scale(int row, int block, int) const {
    const float d = __half2float(__ushort_as_half(static_cast<uint16_t>(head[row].x)));
    return __fmul_rn(d, small_to_float(pair(row, block) & 63));
  }
  __device__ __forceinline__ float min(int row, int block) const {
    const float dmin = __half2float(__ushort_as_half(static_cast<uint16_t>(head[row].x >> 16)));
    return -__fmul_rn(dmin, small_to_float(pair(row, block) >> 6 & 63));
  }
  static __device__ __forceinline__ int channel(int q, int word) { return 8 * q + 4 * word; }
  __device__ __forceinline__ float value(int code, int row, int block, int) const {
    return __fadd_rn(__fmul_rn(scale(row, block, 0), static_cast<float>(code)), min(row, block));
  }

  static __device__ void pack(const uint8_t* from, int, int piece, int row, int q, uint8_t* to,
                              uint8_t* beside) {
    const uint8_t* block = from + piece * kFileBlock;
    const auto code = [&](int k) {
      return from == nullptr ? 0 : block[16 + k / 64 * 32 + k % 32] >> (k / 32 % 2 * 4) & 15;
    };
    for (int b = 0; b < kBlocks; ++b) {
      const int k = b * 32 + q * 8;
      for (int i = 0; i < 4; ++i)
        word_at(to, row, q, b)[i] = static_cast<uint8_t>(code(k + i) | code(k + 4 + i) << 4);
    }
    if (q > 0) return;
    uint32_t head[4] = {};
    for (int i = 0; from != nullptr && i < 4; ++i) head[0] |= block[i] << 8 * i;
    for (int g = 0; from != nullptr && g < kBlocks; ++g) {
      const uint8_t* t = block + 4;  // as tensor/super_block.cpp reads them
      const uint32_t scale = g < 4 ? t[g] & 63 : (t[g + 4] & 15) | (t[g - 4] >> 6) << 4;
      const uint32_t min = g < 4 ? t[g + 4] & 63 : t[g + 4] >> 4 | (t[g] >> 6) << 4;
      const uint64_t pair = static_cast<uint64_t>(scale | min << 6) << 12 * g % 32;
      head[1 + 12 * g / 32] |= static_cast<uint32_t>(pair);
      if (12 * g / 32 < 2) head[2 + 12 * g / 32] |= static_cast<uint32_t>(pair >> 32);
    }
    for (int i = 0; i < 4; ++i) reinterpret_cast<uint32_t*>(beside + row * 16)[i] = head[i];
  }
};

struct Q6K : Nibbles {
  static constexpr int kCodeBytes = kNibbleBytes + 1024;
  static constexpr int kScaleBytes = kTileRows * 16, kBesideBytes = kScaleBytes + kTileRows * 2;
  static constexpr int kFileBlock = 210;
  static constexpr bool kHalves = true, kHasMin = false;
  uint4 upper[2], scales[2];
  float quarter[2];  // d / 4

  __device__ __forceinline__ void load(const Blocks& p, int64_t tile, int piece, int lane) {
    const int64_t index = tile * p.pieces + piece;
    const uint8_t* from = p.w + index * kCodeBytes;
    load_nibbles(from, lane);
    const uint8_t* beside = p.beside + index * kBesideBytes;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const int n = lane / 4 + 8 * row;
      upper[row] = load_stream(from + kNibbleBytes + row * 512 + lane * 16);
      scales[row] = *reinterpret_cast<const uint4*>(beside + n * 16);
      quarter[row] = 0.25f * half_at(beside + kScaleBytes + n * 2);
    }
  }
  // Bits 6 and 7 of each byte: field `f` of the upper bits' word.
  __device__ __forceinline__ uint32_t upper_bits(int row, int block, int f) const {
    const int field = block % 2 * 2 + f;
    return word(upper[row], block / 2) << (6 - 2 * field) & 0xC0C0C0C0;
  }
  __device__ __forceinline__ uint32_t low(int row, int block) const {
    return (nibble_word(row, block) << 2 & 0x3C3C3C3C) | upper_bits(row, block, 0);
  }
  __device__ __forceinline__ uint32_t high(int row, int block) const {
    return (nibble_word(row, block) >> 2 & 0x3C3C3C3C) | upper_bits(row, block, 1);
  }
  // Of codes times 4.
  __device__ __forceinline__ float scale(int row, int block, int half) const {
    const int i = 2 * block + half;
    const uint32_t biased = word(scales[row], i / 4) >> (i % 4 * 8) & 255;
    return __fmul_rn(quarter[row], small_to_float(biased) - 128.0f);
  }
  __device__ __forceinline__ float min(int, int) const { return 0.0f; }
  static __device__ __forceinline__ int channel(int q, int word) { return 4 * q + 16 * word; }
  __device__ __forceinline__ float value(int code, int row, int block, int half) const {
    return static_cast<float>(code) * scale(row, block, half);
  }

  static __device__ void pack(const uint8_t* from, int, int piece, int row, int q, uint8_t* to,
                              uint8_t* beside) {
    const uint8_t* block = from + piece * kFileBlock;
    // The six bits of channel k, 32 of them beyond the last row.
    const auto code = [&](int k) {
      if (from == nullptr) return 32;
      const int low = block[k / 128 * 64 + k % 64] >> (k / 64 % 2 * 4) & 15;
      return low | (block[128 + k / 128 * 32 + k % 32] >> (k % 128 / 32 * 2) & 3) << 4;
    };
    uint8_t uppers[16] = {};
    for (int b = 0; b < kBlocks; ++b) {
      for (int i = 0; i < 4; ++i) {
        const int low = code(b * 32 + q * 4 + i), high = code(b * 32 + 16 + q * 4 + i);
        word_at(to, row, q, b)[i] = static_cast<uint8_t>((low & 15) | (high & 15) << 4);
        const int both = ((low >> 4) ^ 2) | ((high >> 4) ^ 2) << 2;
        uppers[b / 2 * 4 + i] = static_cast<uint8_t>(uppers[b / 2 * 4 + i] | both << b % 2 * 4);
      }
    }
    for (int i = 0; i < 16; ++i)
      to[kNibbleBytes + row / 8 * 512 + (row % 8 * 4 + q) * 16 + i] = uppers[i];
    for (int i = q * 4; i < q * 4 + 4; ++i)
      beside[row * 16 + i] = static_cast<uint8_t>((from == nullptr ? 0 : block[192 + i]) ^ 0x80);
    if (q > 0) return;
    for (int i = 0; i < 2; ++i)
      beside[kScaleBytes + row * 2 + i] = from == nullptr ? 0 : block[208 + i];
  }
};

}  // namespace

LinearKernel cuda_super_row(const char* name, Packing packing) {
  return packing == Packing::q4_k ? blocks_row<Q4K>(name, packing) : blocks_row<Q6K>(name, packing);
}

}  // namespace tandem
