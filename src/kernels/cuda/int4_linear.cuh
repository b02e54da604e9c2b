// int4 in groups, with zero points or without, against f16 activations: one or two tokens by
// int4_few.cuh; for more codes become f16 exactly, less their zero point, a group's sum is f32, and
// the scale meets the sum. The stream is that of stream.cuh, up to 16 tokens that of
// stream_shared.cuh.
//
// A piece: words of eight codes [2][lane][4], then scales [8 rows][groups][row, row + 8], 16 bits,
// then zero points, bytes in the same order. Word 2 h + i of half s of lane 4 r + q is of row
// r + 8 i: in the lower halves of its bytes the channels 64 s + 8 q + 4 h + 0, 2, 1, 3, in the
// upper ones those 32 further. Codes less 8. A piece has groups of 32, 64 or 128: larger ones in
// the file, and 96 or 192, are several of the same scale.
//
// A prompt's tokens go through cuBLASLt in f16, some rows of W at a time, each weight rounded once
// more, by at most 2^-11 of itself.
#pragma once

#include "kernels/cuda/int4_few.cuh"
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/nibbles.cuh"
#include "kernels/cuda/stream_shared.cuh"

namespace tandem {

constexpr int64_t kInt4DenseFrom = 129;

// (a & kMask) ^ kBits.
template <uint32_t kMask, uint32_t kBits>
__device__ __forceinline__ uint32_t masked_xor(uint32_t a) {
  uint32_t out;
  asm("lop3.b32 %0, %1, %2, %3, 0x6A;" : "=r"(out) : "r"(a), "n"(kMask), "n"(kBits));
  return out;
}

// What decoding subtracts, twice in f16: from 1024 + code and from 64 + code, the zero point also.
struct LessZero {
  uint32_t lower = 0xE408E408, upper = 0xD480D480;  // of a zero point of 8

  __device__ __forceinline__ LessZero() = default;
  explicit __device__ __forceinline__ LessZero(uint32_t zero)
      : lower(0xE400E400 + zero * 0x00010001), upper(0xD400D400 + zero * 0x00100010) {}
};

// Four neighbouring codes of a word as f16, exact: those in its bytes' lower or upper halves.
template <bool kUpper>
__device__ __forceinline__ void decode_word(uint32_t word, const LessZero& less, uint32_t& first,
                                            uint32_t& second) {
  constexpr uint32_t kMask = kUpper ? 0x00F000F0 : 0x000F000F;
  // 1024 + code, or 1024 + 16 code: the sign's bit turned.
  constexpr uint32_t kBits = kUpper ? 0x64806480 : 0x64086408;
  constexpr uint32_t kSixteenth = 0x2C002C00;
  const uint32_t a = masked_xor<kMask, kBits>(word), b = masked_xor<kMask, kBits>(word >> 8);
  first = kUpper ? fma_half2(a, kSixteenth, less.upper) : add_half2(a, less.lower);
  second = kUpper ? fma_half2(b, kSixteenth, less.upper) : add_half2(b, less.lower);
}
__device__ __forceinline__ void decode_word(uint32_t word, bool is_upper, const LessZero& less,
                                            uint32_t& first, uint32_t& second) {
  is_upper ? decode_word<true>(word, less, first, second)
           : decode_word<false>(word, less, first, second);
}

template <int kGroup_, bool kHasZeros_>
struct Int4Piece {
  static constexpr int kGroup = kGroup_;
  static constexpr bool kHasZeros = kHasZeros_;
  static constexpr int kGroups = kPieceChannels / kGroup;
  static constexpr int kScalesAt = 1024;
  static constexpr int kZerosAt = kScalesAt + kTileRows * kGroups * 2;
  static constexpr int kBytes = kZerosAt + (kHasZeros ? kTileRows * kGroups : 0);
  static constexpr int kStagePieces = 16, kEach = 2;
  static constexpr ActType kType = ActType::f16;

  using Sum = float;
  static constexpr int kChannels = kPieceChannels;

  struct Tokens {
    uint4 v[4];
    static constexpr int kSkew = 64;  // neighbouring rows of tokens begin in different banks
    static __device__ int token_of(int lane) { return lane / 4; }
    static __device__ int byte_of(int lane) { return lane % 4 * 16; }
    __device__ __forceinline__ void load(uint32_t address) {
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = load_shared(address + 64 * i);
    }
    __device__ __forceinline__ void load(const uint16_t* channels, int q, int left) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        v[i] = 32 * i < left ? *reinterpret_cast<const uint4*>(channels + 32 * i + 8 * q) : uint4{};
      }
    }
  };

  using Scales = PieceScales<kGroups>;
  using Zeros = PieceZeros<kGroups>;
  struct Weights {
    uint4 codes[2];
    Scales scales;
    Zeros zeros;
    __device__ __forceinline__ void load(const uint8_t* piece, int lane) {
      codes[0] = *reinterpret_cast<const uint4*>(piece + lane * 16);
      codes[1] = *reinterpret_cast<const uint4*>(piece + 512 + lane * 16);
      scales.load(piece + kScalesAt, lane);
      if constexpr (kHasZeros) zeros.load(piece + kZerosAt, lane);
    }
  };

  template <int kTiles>
  static __device__ __forceinline__ void multiply(const Weights& w, bool is_bf16,
                                                  const Tokens (&x)[kTiles],
                                                  float (&sums)[kTiles][4]) {
    constexpr int kMmas = kGroup / 16;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      LessZero upper, lower;
      if constexpr (kHasZeros)
        upper = LessZero(w.zeros.upper(g)), lower = LessZero(w.zeros.lower(g));
      float c[2][kTiles][4] = {};  // every other mma: neighbours do not wait for each other
#pragma unroll
      for (int m = 0; m < kMmas; ++m) {
        const int j = g * kMmas + m;
        uint32_t a[4];
        const bool is_upper = j / 2 % 2 == 1;
        decode_word(word(w.codes[j / 4], j % 2 * 2), is_upper, upper, a[0], a[2]);
        decode_word(word(w.codes[j / 4], j % 2 * 2 + 1), is_upper, lower, a[1], a[3]);
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          MmaF16::run(c[m % 2][t], a[0], a[1], a[2], a[3], word(x[t].v[j / 2], j % 2 * 2),
                      word(x[t].v[j / 2], j % 2 * 2 + 1));
        }
      }
      const float s0 = w.scales.upper(g, is_bf16), s1 = w.scales.lower(g, is_bf16);
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[t][i] += (c[0][t][i] + c[1][t][i]) * (i < 2 ? s0 : s1);
      }
    }
  }

  static __device__ int zero(const uint8_t* piece, int row, int k) {
    return kHasZeros ? Zeros::at(piece + kZerosAt, row, k / kGroup) : 8;
  }

  static __device__ void decode(const uint8_t* piece, int lane, bool is_bf16, int left, int64_t ld,
                                uint16_t* out) {
    const int r = lane / 4, q = lane % 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (32 * i >= left) break;
      const auto* words = reinterpret_cast<const uint32_t*>(piece + i / 2 * 512 + lane * 16);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float s = Scales::at(piece + kScalesAt, r + 8 * half, 32 * i / kGroup, is_bf16);
        LessZero less;
        if constexpr (kHasZeros) less = LessZero(zero(piece, r + 8 * half, 32 * i));
        uint32_t pairs[4];
        decode_word(words[half], i % 2 == 1, less, pairs[0], pairs[1]);
        decode_word(words[half + 2], i % 2 == 1, less, pairs[2], pairs[3]);
        __half2 values[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&pairs[k]));
          values[k] = __floats2half2_rn(pair.x * s, pair.y * s);
        }
        *reinterpret_cast<uint4*>(out + (r + 8 * half) * ld + 32 * i + 8 * q) =
            *reinterpret_cast<const uint4*>(values);
      }
    }
  }

  static __device__ float value(const uint8_t* piece, int row, int k, bool is_bf16) {
    const int lane = row % 8 * 4 + k % 32 / 8, byte = k % 2 * 2 + k % 4 / 2;
    const int word = k % 8 / 4 * 2 + row / 8;
    const int code =
        (piece[k / 64 * 512 + lane * 16 + word * 4 + byte] >> (k / 32 % 2 * 4) & 15) ^ 8;
    return static_cast<float>(code - zero(piece, row, k)) *
           Scales::at(piece + kScalesAt, row, k / kGroup, is_bf16);
  }

  static __device__ int stored_code(const StreamSource& p, int64_t stored, int k) {
    if (stored < 0 || k >= p.K) return 8;
    return p.data[stored * p.row_bytes + k / 2] >> (k % 2 * 4) & 15;
  }
  // Codes of the channels 32 block + 8 q ... of one row, where block is even with those 32 further.
  static __device__ void pack(const StreamSource& p, int64_t stored, int row, int64_t piece,
                              int block, int q, uint8_t* to) {
    const int k = static_cast<int>(piece) * kPieceChannels + block * 32 + q * 8;
    for (int i = 0; i < 8 && block % 2 == 0; ++i) {
      const int codes = stored_code(p, stored, k + i) | stored_code(p, stored, k + 32 + i) << 4;
      to[block / 2 * 512 + (row % 8 * 4 + q) * 16 + i / 4 * 8 + row / 8 * 4 + i % 2 * 2 +
         i % 4 / 2] = static_cast<uint8_t>(codes ^ 0x88);
    }
    const int unit = block * 4 + q;
    if (unit >= kGroups) return;
    const int64_t group = (piece * kGroups + unit) / (p.group / kGroup);
    Scales::pack(p.scales, stored, p.groups, group, row, unit, to + kScalesAt);
    if constexpr (kHasZeros) {
      Zeros::pack(p.zeros, stored, p.groups, group, row, unit, to + kZerosAt);
    }
  }
};

// Calls `of` with the piece of the encoding's groups, which are multiples of 32.
template <bool kHasZeros, typename Of>
auto with_int4_piece(const Encoding& encoding, Of of) {
  if (encoding.scale_type == ScaleType::f32) {
    cuda_refuse("cuda runs int4 with scales of 16 bits; found bits:", 32);
  }
  return encoding.group % 128 == 0  ? of(Int4Piece<128, kHasZeros>{})
         : encoding.group % 64 == 0 ? of(Int4Piece<64, kHasZeros>{})
                                    : of(Int4Piece<32, kHasZeros>{});
}

template <bool kHasZeros>
PackedWeight prepack_int4(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
  return with_int4_piece<kHasZeros>(parts.front().encoding, [&](auto piece) {
    return prepack_stream<decltype(piece)>(context, parts, arena);
  });
}

template <bool kHasZeros>
void run_int4(const Context& context, const PackedWeight& w, const Activations& x, float* y,
              int64_t ldy, bool accumulate) {
  with_int4_piece<kHasZeros>(w.encoding, [&](auto piece) {
    using Piece = decltype(piece);
    using Few16 = Int4Few<Piece::kGroup, false, kHasZeros>;
    const Stream p = stream_of<Piece>(w, x, y, ldy, accumulate);
    if (x.T == 0) return;
    if (x.T > Few16::kMostTokens) {
      if (x.T <= 8 && launch_shared<Piece, 1>(context, p)) return;
      if (x.T > 8 && x.T <= 16 && launch_shared<Piece, 2>(context, p)) return;
      return run_stream<Piece>(context, w, x, y, ldy, accumulate, kInt4DenseFrom);
    }
    if (p.scales_are_bf16) {
      run_few(context, few_of<Int4Few<Piece::kGroup, true, kHasZeros>>(p));
    } else {
      run_few(context, few_of<Few16>(p));
    }
  });
}

template <bool kHasZeros>
void gather_int4_rows(const Context& context, const PackedWeight& w, const int32_t* rows, int64_t T,
                      float* out) {
  with_int4_piece<kHasZeros>(w.encoding, [&](auto piece) {
    gather_stream_rows<decltype(piece)>(context, w, rows, T, out);
  });
}

template <bool kHasZeros>
LinearKernel int4_row(const char* name, Packing packing) {
  return {name,
          "cuda",
          packing,
          ActType::f16,
          prepack_int4<kHasZeros>,
          run_int4<kHasZeros>,
          nullptr,
          gather_int4_rows<kHasZeros>,
          "from 129 on f16 weights through cuBLASLt"};
}

}  // namespace tandem
