// int4 in groups against few tokens, in integers (few_planes.cuh). Rows of the mma are the codes
// less 8, as they lie in the upper or the lower halves of a word's bytes: three instructions make
// eight codes.
#pragma once

#include "kernels/cuda/few_planes.cuh"

namespace tandem {

template <int kGroup, bool kScalesAreBf16>
struct Int4Few : FewPlanes {
  static constexpr int kGroups = kPieceChannels / kGroup;
  static constexpr int kScalesAt = 1024;
  static constexpr int kBytes = kScalesAt + kTileRows * kGroups * 2;
  static constexpr int kPartPieces = 64;
  static constexpr int kMostTokens = 2;

  static __device__ __forceinline__ void load_x(const Few<Int4Few>& p, int first, int count,
                                                uint8_t* x) {
    const auto split = [](const uint4& v, uint2& upper, uint2& lower) {
      return split_bytes<0, 2, 1, 3>(v, upper, lower);
    };
    load_planes(p, first, count, x, split, [](uint8_t* column, int c, const uint2& bytes) {
      *reinterpret_cast<uint2*>(column + c / 8 * 64 + c % 4 * 16 + c % 8 / 4 * 8) = bytes;
    });
  }

  static __device__ __forceinline__ void multiply(const uint8_t* piece, int lane,
                                                  const Tokens& tokens, const Column&, Sums& sums) {
    constexpr int kMmas = kGroup / 32;
    constexpr uint32_t kUpper = 0xF0F0F0F0;
    const uint4 codes[2] = {*reinterpret_cast<const uint4*>(piece + lane * 16),
                            *reinterpret_cast<const uint4*>(piece + 512 + lane * 16)};
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const float2 scale = pair_of_scales<kGroups, kScalesAreBf16>(piece + kScalesAt, lane, g);
      int c[4] = {};
#pragma unroll
      for (int j = g * kMmas; j < (g + 1) * kMmas; ++j) {
        uint32_t a[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          a[i] = (j % 2 == 0 ? word(codes[j / 2], i) << 4 : word(codes[j / 2], i)) & kUpper;
        const uint4& b = tokens.b[j / 2];
        MmaS8::run(c, a[0], a[1], a[2], a[3], word(b, j % 2 * 2), word(b, j % 2 * 2 + 1));
      }
      sums.v[0] += static_cast<float>(c[0] * 256 + c[1]) * (scale.x * tokens.factor);
      sums.v[1] += static_cast<float>(c[2] * 256 + c[3]) * (scale.y * tokens.factor);
    }
  }
};

}  // namespace tandem
