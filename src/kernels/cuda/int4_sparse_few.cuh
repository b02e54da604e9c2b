// 2:4 int4 in groups against few tokens, in integers (few_planes.cuh): codes less 8, 16 times, are
// the sparse A side of mma.sp m16n8k64. The pieces are those of linear_sparse_int4.cu, made for the
// f16 mma of 32 channels: 64 channels here are two of those, j and j + 1, of whose groups of four
// channels a lane 4 r + q has q and q + 4 each. So the groups change order, in x once for a token
// and in the places as they are read. The mma's groups 0, 1, 2, 3 ... 7 are
//     0 and 4 of j, 1 and 5, 2 and 6, 3 and 7;
// 8 ... 15 are those of j + 1.
#pragma once

#include "kernels/cuda/few_planes.cuh"
#include "kernels/cuda/sparse_mma.cuh"

namespace tandem {

// The places that lane 4 r + q gives to the mma of 64 channels, eight groups of one row: r where q
// is even, r + 8 where it is odd. It has four groups of both in `mine`, its neighbour the others.
__device__ __forceinline__ uint32_t places_of_64(uint32_t mine, int lane) {
  const uint32_t others = __shfl_xor_sync(~0u, mine, 1);
  // Nibbles a a b b a a b b, a from the even lane ...
  uint32_t p = __byte_perm(mine, others, lane % 2 == 0 ? 0x5140 : 0x3726);
  // ... to a b a b a b a b.
  const uint32_t turned = (p ^ p >> 4) & 0x00F000F0;
  return p ^ turned ^ turned << 4;
}

// The codes in the upper halves of a word's bytes less 8, times 16.
__device__ __forceinline__ uint32_t less_eight(uint32_t codes) {
  uint32_t out;
  asm("lop3.b32 %0, %1, 0xF0F0F0F0, 0x80808080, 0x6A;" : "=r"(out) : "r"(codes));
  return out;
}

template <int kGroup, bool kScalesAreBf16>
struct Int4SparseFew : FewPlanes {
  static constexpr int kGroups = kPieceChannels / kGroup;
  static constexpr int kPlacesAt = 512, kScalesAt = kPlacesAt + 256;
  static constexpr int kBytes = kScalesAt + kTileRows * kGroups * 2;
  static constexpr int kPartPieces = 64;
  static constexpr int kMostTokens = 2;

  static __device__ __forceinline__ void load_x(const Few<Int4SparseFew>& p, int first, int count,
                                                uint8_t* x) {
    const auto split = [](const uint4& v, uint2& upper, uint2& lower) {
      return split_bytes<0, 1, 2, 3>(v, upper, lower);
    };
    load_planes(p, first, count, x, split, [](uint8_t* column, int c, const uint2& bytes) {
      // Groups 2 c and 2 c + 1: places 4 (c % 2) + c % 4 / 2 and 2 further, of which the lane is
      // the remainder of 4.
      uint8_t* to = column + c / 8 * 64 + c % 4 / 2 * 16 + (c % 8 / 4 * 2 + c % 2) * 4;
      *reinterpret_cast<uint32_t*>(to) = bytes.x;
      *reinterpret_cast<uint32_t*>(to + 32) = bytes.y;
    });
  }

  static __device__ __forceinline__ void multiply(const uint8_t* piece, int lane,
                                                  const Tokens& tokens, const Column&, Sums& sums) {
    const uint4 codes = *reinterpret_cast<const uint4*>(piece + lane * 16);
    const uint2 places = *reinterpret_cast<const uint2*>(piece + kPlacesAt + lane * 8);
    int c[kGroups][4] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      uint32_t a[4];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const uint32_t eight = word(codes, 2 * i + j);
        const uint32_t first = less_eight(eight << 4), second = less_eight(eight);
        a[2 * j] = __byte_perm(first, second, 0x6420);
        a[2 * j + 1] = __byte_perm(first, second, 0x7531);
      }
      const uint32_t at = places_of_64(i == 0 ? places.x : places.y, lane);
      if constexpr (kGroup == 32) {
        mma_sparse_bytes(c[2 * i], a[0], a[1], 0, 0, tokens.b[i], at);
        mma_sparse_bytes(c[2 * i + 1], 0, 0, a[2], a[3], tokens.b[i], at);
      } else {
        mma_sparse_bytes(c[i * 64 / kGroup], a[0], a[1], a[2], a[3], tokens.b[i], at);
      }
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const float2 scale = pair_of_scales<kGroups, kScalesAreBf16>(piece + kScalesAt, lane, g);
      sums.v[0] += static_cast<float>(c[g][0] * 256 + c[g][1]) * (scale.x * tokens.factor);
      sums.v[1] += static_cast<float>(c[g][2] * 256 + c[g][3]) * (scale.y * tokens.factor);
    }
  }
};

}  // namespace tandem
