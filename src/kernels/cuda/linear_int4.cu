// int4 in groups of 32, 64 and 128, against f16 activations: codes become f16 exactly, a group's sum
// is f32, and the scale meets the sum. The stream is that of stream.cuh.
//
// A piece: words of eight codes [2][lane][4] (nibbles.cuh), then scales [16 rows][groups], 16 bits.
// Word j of lane 4 r + q is the mma of the channels 32 (j / 2) + 8 q + 4 (j % 2) + 0 ... 3, so that a
// lane's activations are 16 bytes in a row for two of them.
//
// A prompt's tokens go through cuBLASLt in f16, some rows of W at a time, each weight rounded once
// more, by at most 2^-11 of itself.
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/nibbles.cuh"
#include "kernels/cuda/stream.cuh"

namespace tandem {
namespace {

constexpr int64_t kDenseFrom = 129;

template <int kGroup>
struct Int4Piece {
  static constexpr int kGroups = kPieceChannels / kGroup;
  static constexpr int kScalesAt = 1024;
  static constexpr int kBytes = kScalesAt + kTileRows * kGroups * 2;
  static constexpr int kStagePieces = 16;
  static constexpr ActType kType = ActType::f16;

  using Sum = float;
  static constexpr int kChannels = kPieceChannels;

  struct Tokens {
    uint4 v[4];
    __device__ __forceinline__ void load(const uint16_t* channels, int q, int left) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        v[i] = 32 * i < left ? *reinterpret_cast<const uint4*>(channels + 32 * i + 8 * q) : uint4{};
      }
    }
  };

  static __device__ __forceinline__ float scale(const uint8_t* piece, int row, int group,
                                                bool is_bf16) {
    const auto* scales = reinterpret_cast<const uint16_t*>(piece + kScalesAt);
    return scale_to_float(scales[row * kGroups + group], is_bf16);
  }

  template <int kTiles>
  static __device__ __forceinline__ void multiply(const uint8_t* piece, int lane, bool is_bf16,
                                                  const Tokens (&x)[kTiles],
                                                  float (&sums)[kTiles][4]) {
    constexpr int kMmas = kGroup / 16;
    const uint4 codes[2] = {*reinterpret_cast<const uint4*>(piece + lane * 16),
                            *reinterpret_cast<const uint4*>(piece + 512 + lane * 16)};
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      float c[2][kTiles][4] = {};  // every other mma: neighbours do not wait for each other
#pragma unroll
      for (int m = 0; m < kMmas; ++m) {
        const int j = g * kMmas + m;
        uint32_t a[4];
        decode_nibbles(word(codes[j / 4], j % 4), a);
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          MmaF16::run(c[m % 2][t], a[0], a[1], a[2], a[3], word(x[t].v[j / 2], j % 2 * 2),
                      word(x[t].v[j / 2], j % 2 * 2 + 1));
        }
      }
      const float s0 = scale(piece, lane / 4, g, is_bf16),
                  s1 = scale(piece, lane / 4 + 8, g, is_bf16);
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[t][i] += (c[0][t][i] + c[1][t][i]) * (i < 2 ? s0 : s1);
      }
    }
  }

  static __device__ void decode(const uint8_t* piece, int lane, bool is_bf16, int left, int64_t ld,
                                uint16_t* out) {
    const int r = lane / 4, q = lane % 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (32 * i >= left) break;
      uint32_t a[2][4];
      const auto* words = reinterpret_cast<const uint32_t*>(piece + i / 2 * 512 + lane * 16);
      decode_nibbles(words[i % 2 * 2], a[0]);
      decode_nibbles(words[i % 2 * 2 + 1], a[1]);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float s = scale(piece, r + 8 * half, 32 * i / kGroup, is_bf16);
        const uint32_t pairs[] = {a[0][half], a[0][half + 2], a[1][half], a[1][half + 2]};
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
    const int j = k / 32 * 2 + k % 8 / 4, lane = row % 8 * 4 + k % 32 / 8;
    const int byte = row / 8 + k % 2 * 2;
    const int code =
        piece[j / 4 * 512 + lane * 16 + j % 4 * 4 + byte] >> (k % 4 / 2 * 4) & 15;
    return static_cast<float>(code - 8) * scale(piece, row, k / kGroup, is_bf16);
  }

  static __device__ int stored_code(const StreamSource& p, int64_t stored, int k) {
    if (stored < 0 || k >= p.K) return 8;
    return p.data[stored * p.row_bytes + k / 2] >> (k % 2 * 4) & 15;
  }
  // Codes of the channels 32 block + 8 q ... of one row.
  static __device__ void pack(const StreamSource& p, int64_t stored, int row, int64_t piece,
                              int block, int q, uint8_t* to) {
    const int k = static_cast<int>(piece) * kPieceChannels + block * 32 + q * 8;
    for (int i = 0; i < 2; ++i) {
      const int j = block * 2 + i, first = k + i * 4;
      uint8_t* bytes = to + j / 4 * 512 + (row % 8 * 4 + q) * 16 + j % 4 * 4 + row / 8;
      for (int pair = 0; pair < 2; ++pair) {
        bytes[2 * pair] = static_cast<uint8_t>(stored_code(p, stored, first + pair) |
                                               stored_code(p, stored, first + 2 + pair) << 4);
      }
    }
    const int unit = block * 4 + q;
    if (unit >= kGroups) return;
    const int64_t group = piece * kGroups + unit;
    const bool exists = stored >= 0 && group < p.groups;
    reinterpret_cast<uint16_t*>(to + kScalesAt)[row * kGroups + unit] =
        exists ? reinterpret_cast<const uint16_t*>(p.scales)[stored * p.groups + group] : 0;
  }
};

// Calls `of` with the piece of the encoding's groups.
template <typename Of>
auto with_piece(const Encoding& encoding, Of of) {
  if (encoding.group != 32 && encoding.group != 64 && encoding.group != 128) {
    cuda_refuse("cuda runs int4 in groups of 32, 64 and 128; found groups of", encoding.group);
  }
  if (encoding.scale_type == ScaleType::f32) {
    cuda_refuse("cuda runs int4 with scales of 16 bits; found bits:", 32);
  }
  return encoding.group == 32   ? of(Int4Piece<32>{})
         : encoding.group == 64 ? of(Int4Piece<64>{})
                                : of(Int4Piece<128>{});
}

PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
  return with_piece(parts.front().encoding, [&](auto piece) {
    return prepack_stream<decltype(piece)>(context, parts, arena);
  });
}

void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
         bool accumulate) {
  with_piece(w.encoding, [&](auto piece) {
    run_stream<decltype(piece)>(context, w, x, y, ldy, accumulate, kDenseFrom);
  });
}

void gather_rows(const Context& context, const PackedWeight& w, const int32_t* rows, int64_t T,
                 float* out) {
  with_piece(w.encoding, [&](auto piece) {
    gather_stream_rows<decltype(piece)>(context, w, rows, T, out);
  });
}

}  // namespace

LinearKernel cuda_int4_row(const char* name) {
  return {name, "cuda", Packing::int4_group, ActType::f16, prepack, run, nullptr, gather_rows,
          "from 129 on f16 weights through cuBLASLt"};
}

}  // namespace tandem
