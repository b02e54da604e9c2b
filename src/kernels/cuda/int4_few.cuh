// int4 in groups against few tokens, in integers (few_planes.cuh). Rows of the mma are the codes
// less 8, as they lie in the upper or the lower halves of a word's bytes: three instructions make
// eight codes.
//
// Where groups have zero points, (zero - 8) times the group's sum of x comes off its sum, whole
// numbers below 2^31 still. The sums of x lie behind the bytes of x, [T][pieces][groups].
#pragma once

#include "kernels/cuda/few_planes.cuh"

namespace tandem {

template <int kGroup, bool kScalesAreBf16, bool kHasZeros>
struct Int4Few : FewPlanes {
  static constexpr int kGroups = kPieceChannels / kGroup;
  static constexpr int kScalesAt = 1024;
  static constexpr int kZerosAt = kScalesAt + kTileRows * kGroups * 2;
  static constexpr int kBytes = kZerosAt + (kHasZeros ? kTileRows * kGroups : 0);
  static constexpr int kPartPieces = 64;
  static constexpr int kMostTokens = 2;

  static __host__ __device__ int x_bytes(int T, int pieces) {
    const int sums = kHasZeros ? T * pieces * kGroups * 4 : 0;
    return FewPlanes::x_bytes(T, pieces) + (sums + 15) / 16 * 16;
  }

  static __device__ __forceinline__ void load_x(const Few<Int4Few>& p, int first, int count,
                                                uint8_t* x) {
    const auto split = [](const uint4& v, uint2& upper, uint2& lower) {
      return split_bytes<0, 2, 1, 3>(v, upper, lower);
    };
    const auto place = [](uint8_t* column, int c, const uint2& bytes) {
      *reinterpret_cast<uint2*>(column + c / 8 * 64 + c % 4 * 16 + c % 8 / 4 * 8) = bytes;
    };
    if constexpr (kHasZeros) {
      constexpr int kLanes = kGroup / 8;  // that have a group
      int* sums = reinterpret_cast<int*>(x + FewPlanes::x_bytes(p.T, p.held));
      load_planes(p, first, count, x, split, place,
                  [&](int t, int c, const uint2& upper, const uint2& lower) {
                    int sum = 256 * sum_of_bytes(upper) + sum_of_bytes(lower);
                    for (int d = kLanes / 2; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
                    if (c < count * 16 && c % kLanes == 0)
                      sums[t * p.held * kGroups + c / kLanes] = sum;
                  });
    } else {
      load_planes(p, first, count, x, split, place);
    }
  }

  struct Column : FewPlanes::Column {
    const int* sums;
    __device__ __forceinline__ Column(const Few<Int4Few>& p, const uint8_t* x, int lane)
        : FewPlanes::Column(p, x, lane),
          sums(reinterpret_cast<const int*>(x + FewPlanes::x_bytes(p.T, p.held)) +
               min(lane % 4, p.T - 1) * p.held * kGroups) {}
  };

  struct Tokens : FewPlanes::Tokens {
    int sums[kGroups];  // of the groups' x, where there are zero points
    __device__ __forceinline__ void load(const Column& column, int piece) {
      FewPlanes::Tokens::load(column, piece);
#pragma unroll
      for (int g = 0; g < kGroups; ++g) sums[g] = kHasZeros ? column.sums[piece * kGroups + g] : 0;
    }
  };

  static __device__ __forceinline__ void multiply(const uint8_t* piece, int lane,
                                                  const Tokens& tokens, const Column&, Sums& sums) {
    constexpr int kMmas = kGroup / 32;
    constexpr uint32_t kUpper = 0xF0F0F0F0;
    const uint4 codes[2] = {*reinterpret_cast<const uint4*>(piece + lane * 16),
                            *reinterpret_cast<const uint4*>(piece + 512 + lane * 16)};
    PieceZeros<kGroups> zeros;
    if constexpr (kHasZeros) zeros.load(piece + kZerosAt, lane);
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
      int upper = c[0] * 256 + c[1], lower = c[2] * 256 + c[3];
      if constexpr (kHasZeros) {  // codes are 16 times what they stand for
        upper += (128 - 16 * static_cast<int>(zeros.upper(g))) * tokens.sums[g];
        lower += (128 - 16 * static_cast<int>(zeros.lower(g))) * tokens.sums[g];
      }
      sums.v[0] += static_cast<float>(upper) * (scale.x * tokens.factor);
      sums.v[1] += static_cast<float>(lower) * (scale.y * tokens.factor);
    }
  }

 private:
  static __device__ __forceinline__ int sum_of_bytes(const uint2& bytes) {
    constexpr int kOnes = 0x01010101;
    return __dp4a(static_cast<int>(bytes.x), kOnes, __dp4a(static_cast<int>(bytes.y), kOnes, 0));
  }
};

}  // namespace tandem
