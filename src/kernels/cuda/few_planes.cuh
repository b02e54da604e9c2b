// Tokens as integers, for weights of 4 bits against few tokens (few_tokens.cuh).
//
// f16 has 11 significant bits; a token's 128 channels of a piece become integers of 16 bits times a
// power of two: exact down to a 16th of the largest of them, below that rounded by at most 2^-15 of
// the largest. Their upper and lower bytes are two columns of an integer mma, so that sums are
// exact in 32 bits.
#pragma once

#include <cuda_fp16.h>

#include "kernels/cuda/few_tokens.cuh"
#include "kernels/cuda/piece.cuh"
#include "kernels/cuda/warp.cuh"

namespace tandem {

// Eight f16 numbers of a lane to eight upper and eight lower bytes; 16 lanes have a piece. Word h
// of the bytes has the numbers 4 h + kA, kB, kC, kD. The result is the power of two, over 16,
// because codes are 16 times what they stand for.
template <int kA, int kB, int kC, int kD>
__device__ __forceinline__ float split_bytes(const uint4& v, uint2& upper, uint2& lower) {
  const auto half2 = [](uint32_t pair) { return *reinterpret_cast<const __half2*>(&pair); };
  const __half2 most = __hmax2_nan(__hmax2_nan(__habs2(half2(v.x)), __habs2(half2(v.y))),
                                   __hmax2_nan(__habs2(half2(v.z)), __habs2(half2(v.w))));
  // As integers positive numbers have the same order, and what is no number comes last.
  uint32_t largest = *reinterpret_cast<const uint32_t*>(&most);
  largest = max(largest & 0xFFFF, largest >> 16);
  for (int d = 8; d > 0; d /= 2) largest = max(largest, __shfl_xor_sync(~0u, largest, d));
  const float magnitude = scale_to_float(largest, false);
  // Such that the integers are below 32640: 127 * 256 + 128.
  const uint32_t exponent =
      largest == 0 ? 127 : __float_as_uint(magnitude * (32768.0f / 32639.0f)) >> 23;
  const float to_integer = __uint_as_float((268 - exponent) << 23);
  // The integer + 128 in the lowest bits; then the lower byte is that of the integer + 128.
  constexpr float kMagic = 12582912.0f + 128.0f;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint32_t n[4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float2 f = __half22float2(half2(word(v, 2 * half + i)));
      n[2 * i] = __float_as_uint(fmaf(f.x, to_integer, kMagic));
      n[2 * i + 1] = __float_as_uint(fmaf(f.y, to_integer, kMagic));
    }
    const uint32_t first = __byte_perm(n[kA], n[kB], 0x5140);
    const uint32_t second = __byte_perm(n[kC], n[kD], 0x5140);
    (half == 0 ? lower.x : lower.y) = __byte_perm(first, second, 0x5410) ^ 0x80808080;
    (half == 0 ? upper.x : upper.y) = __byte_perm(first, second, 0x7632);
  }
  return largest < 0x7C00 ? __uint_as_float((exponent - 18) << 23) : NAN;
}

// What pieces of few_tokens.cuh share whose x is columns of bytes in shared memory: [2 T][stride],
// upper and lower bytes of a token, then factors [T][pieces]. Of each 64 channels a lane 4 r + q
// has 16 bytes of column r, those at 16 q, in the order in which its fragments want them.
struct FewPlanes {
  struct Constants {};
  static constexpr int kBlockBytes = 104 * 1024, kStaticBytes = 0;
  static __device__ __forceinline__ void prepare(const Constants&) {}
  static constexpr int kPadding = 64;  // neighbouring columns begin in different banks
  static __host__ __device__ int stride(int pieces) { return pieces * kPieceChannels + kPadding; }
  static __host__ __device__ int x_bytes(int T, int pieces) {
    return 2 * T * stride(pieces) + (T * pieces * 4 + 15) / 16 * 16;
  }

  struct Nothing {
    __device__ __forceinline__ void operator()(int, int, const uint2&, const uint2&) const {}
  };
  // split(v, upper, lower) makes bytes of chunk c's channels and returns what they are to be
  // multiplied with; place(column, c, bytes) stores them; all lanes call also(t, c, upper, lower),
  // the last ones beyond the pieces too.
  template <typename P, typename Split, typename Place, typename Also = Nothing>
  static __device__ __forceinline__ void load_planes(const Few<P>& p, int first, int count,
                                                     uint8_t* x, Split split, Place place,
                                                     Also also = {}) {
    const int column = stride(p.held);
    float* factors = reinterpret_cast<float*>(x + 2 * p.T * column);
    for_each_chunk(p, first, count, [&](int t, int c, const uint4& v) {
      uint2 upper, lower;
      const float factor = split(v, upper, lower);
      also(t, c, upper, lower);
      if (c >= count * 16) return;
      uint8_t* to = x + 2 * t * column;
      place(to, c, upper);
      place(to + column, c, lower);
      if (c % 16 == 0) factors[t * p.held + c / 16] = factor;
    });
  }

  // Lane 4 r + q has column r of the mma's B side, and of its sums those of token q.
  struct Column {
    const uint8_t* bytes;
    const float* factors;
    template <typename P>
    __device__ __forceinline__ Column(const Few<P>& p, const uint8_t* x, int lane) {
      const int column = stride(p.held), r = lane / 4, q = lane % 4;
      bytes = x + min(r, 2 * p.T - 1) * column + q * 16;
      factors = reinterpret_cast<const float*>(x + 2 * p.T * column) + min(q, p.T - 1) * p.held;
    }
  };

  struct Tokens {
    uint4 b[2];
    float factor;
    __device__ __forceinline__ void load(const Column& column, int piece) {
      const uint8_t* from = column.bytes + piece * kPieceChannels;
      b[0] = *reinterpret_cast<const uint4*>(from);
      b[1] = *reinterpret_cast<const uint4*>(from + 64);
      factor = column.factors[piece];
    }
  };

  struct Sums {
    float v[2];  // of rows r and r + 8
  };
  static __device__ __forceinline__ void publish(const Sums& sums, float* to, int T, int lane) {
    const int r = lane / 4, q = lane % 4;
    if (q >= T) return;
    to[q * kTileRows + r] = sums.v[0];
    to[q * kTileRows + r + 8] = sums.v[1];
  }
};

// Scales of rows r and r + 8 of a piece: 16 bits, [8][groups][rows r and r + 8].
template <int kGroups, bool kScalesAreBf16>
__device__ __forceinline__ float2 pair_of_scales(const uint8_t* scales, int lane, int group) {
  const uint32_t pair =
      *reinterpret_cast<const uint32_t*>(scales + (lane / 4 * kGroups + group) * 4);
  return {scale_to_float(pair & 0xFFFF, kScalesAreBf16),
          scale_to_float(pair >> 16, kScalesAreBf16)};
}

}  // namespace tandem
