// A page of the cache as kernels see it: where it lies, and how a lane gets fragments of mma from
// it (order of the elements: kv_fragments.h).
#pragma once

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/warp.cuh"

namespace tandem {

// The pages of one layer. One kv head of a page is one run of bytes: K, V and, of narrow types, the
// words of both.
struct Pages {
  uint8_t* base;  // of page 0
  int64_t page_bytes;
  int head_bytes;

  __host__ Pages(const KvCache& cache, int64_t layer) {
    const KvLayout& layout = cache.layout;
    page_bytes = layout.layer_bytes();
    base = reinterpret_cast<uint8_t*>(cache.base + layer * cache.num_pages * page_bytes);
    head_bytes = static_cast<int>(layout.head_bytes());
  }
  __device__ uint8_t* head(int32_t page, int g) const {
    return base + page * page_bytes + static_cast<int64_t>(g) * head_bytes;
  }
};

constexpr int kv_bits(KvType type) {
  return type == KvType::bf16 ? 16 : type == KvType::int4 ? 4 : 8;
}

// What of a head's bytes a kernel copies and where the parts lie, known when it is compiled.
template <KvType type, int D>
struct HeadBytes {
  static constexpr int kPlane = static_cast<int>(kPageTokens) * D * kv_bits(type) / 8;
  static constexpr int kTile = 16 * D * kv_bits(type) / 8;  // 16 tokens of a plane
  static constexpr int kWords = type == KvType::bf16 ? 0 : static_cast<int>(kPageTokens) * 4;
  static constexpr int kAll = 2 * (kPlane + kWords);
  static constexpr int kKeyWords = 2 * kPlane, kValueWords = 2 * kPlane + kWords;
  static_assert(kAll % 64 == 0, "as KvLayout::head_bytes has it");
};

__device__ __forceinline__ uint4 load16(const uint8_t* p) {
  return *reinterpret_cast<const uint4*>(p);
}

__device__ __forceinline__ uint32_t subtract_pair(uint32_t pair, uint32_t offset) {
  const __half2 difference =
      __hsub2(*reinterpret_cast<const __half2*>(&pair), *reinterpret_cast<const __half2*>(&offset));
  return *reinterpret_cast<const uint32_t*>(&difference);
}

// (word & mask) | bits, in one instruction.
template <uint32_t mask, uint32_t bits>
__device__ __forceinline__ uint32_t masked_or(uint32_t word) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(result) : "r"(word), "n"(mask), "n"(bits));
  return result;
}

// What integer codes come out too large by when they are only put into the mantissa of an f16 and
// the subtraction is left to the sums: in the even and in the odd pairs of widen4 and widen8.
template <KvType type>
struct Excess {
  static constexpr float kEven = type == KvType::int4 ? 1024 : type == KvType::int8 ? 1152 : 0;
  static constexpr float kOdd = type == KvType::int4 ? 64 : kEven;
  static constexpr bool kAny = kEven != 0;
};

// Four codes of a word as two pairs of f16.
template <KvType type, bool with_excess>
__device__ __forceinline__ void widen4(uint32_t word, uint32_t& a, uint32_t& b) {
  if constexpr (type == KvType::fp8) {
    fp8_to_f16(word, a, b);
  } else {
    // 0x6400 + u is the f16 1024 + u.
    constexpr uint32_t k1024And128 = 0x64806480;
    a = __byte_perm(word, 0x64646464, 0x4140), b = __byte_perm(word, 0x64646464, 0x4342);
    if constexpr (!with_excess)
      a = subtract_pair(a, k1024And128), b = subtract_pair(b, k1024And128);
  }
}

// Eight codes of four bits as four pairs of f16. 0x6400 + u is 1024 + u, 0x5400 + 16 u is 64 + u.
template <bool with_excess>
__device__ __forceinline__ void widen8(uint32_t word, uint32_t* pairs) {
  constexpr uint32_t k1024 = 0x64006400, k64 = 0x54005400;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    uint32_t& even = pairs[2 * i] = masked_or<0x000F000F, k1024>(word >> (8 * i));
    uint32_t& odd = pairs[2 * i + 1] = masked_or<0x00F000F0, k64>(word >> (8 * i));
    if constexpr (!with_excess) even = subtract_pair(even, k1024), odd = subtract_pair(odd, k64);
  }
}

// Fragments of one tile of 16 tokens. keys(): k[h][w] is the pair of channels 64 block + 16 q + 2 w
// of token r + 8 h. values(): v[c] are the four words of an A fragment, rows the channels of tile
// 4 block + c, columns the 16 tokens; words 0 and 2 are a B fragment of its channels 0 ... 7, words
// 1 and 3 of the others. With the excess, that of the even pairs is in even w and in channels 0 ...
// 7, that of the odd ones in odd w and in the others.
template <KvType type, bool with_excess = false>
struct Fragments {
  using Mma = MmaF16;
  static __device__ __forceinline__ void keys(const uint8_t* tile, int block, int lane,
                                              uint32_t (&k)[2][8]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint4 codes = load16(tile + ((block * 2 + h) * 32 + lane) * 16);
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        widen4<type, with_excess>(word(codes, w), k[h][2 * w], k[h][2 * w + 1]);
      }
    }
  }
  static __device__ __forceinline__ void values(const uint8_t* tile, int block, int lane,
                                                uint32_t (&v)[4][4]) {
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      const uint4 codes = load16(tile + ((block * 2 + p) * 32 + lane) * 16);
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        uint32_t* to = v[2 * p + w / 2] + w % 2 * 2;
        widen4<type, with_excess>(word(codes, w), to[0], to[1]);
      }
    }
  }
};

template <bool with_excess>
struct Fragments<KvType::bf16, with_excess> {
  using Mma = MmaBf16;
  static __device__ __forceinline__ void keys(const uint8_t* tile, int block, int lane,
                                              uint32_t (&k)[2][8]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint4 pairs = load16(tile + (((block * 2 + h) * 2 + i) * 32 + lane) * 16);
#pragma unroll
        for (int w = 0; w < 4; ++w) k[h][4 * i + w] = word(pairs, w);
      }
    }
  }
  static __device__ __forceinline__ void values(const uint8_t* tile, int block, int lane,
                                                uint32_t (&v)[4][4]) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const uint4 pairs = load16(tile + ((block * 4 + c) * 32 + lane) * 16);
#pragma unroll
      for (int w = 0; w < 4; ++w) v[c][w] = word(pairs, w);
    }
  }
};

template <bool with_excess>
struct Fragments<KvType::int4, with_excess> {
  using Mma = MmaF16;
  static __device__ __forceinline__ void keys(const uint8_t* tile, int block, int lane,
                                              uint32_t (&k)[2][8]) {
    const uint4 codes = load16(tile + (block * 32 + lane) * 16);
#pragma unroll
    for (int w = 0; w < 4; ++w) widen8<with_excess>(word(codes, w), k[w / 2] + w % 2 * 4);
  }
  static __device__ __forceinline__ void values(const uint8_t* tile, int block, int lane,
                                                uint32_t (&v)[4][4]) {
    const uint4 codes = load16(tile + (block * 32 + lane) * 16);
#pragma unroll
    for (int c = 0; c < 4; ++c) widen8<with_excess>(word(codes, c), v[c]);
  }
};

// A token's word: x = code * scale + min. A scale below what counts is a head of zeros, or nearly.
template <KvType type>
struct TokenWord {
  uint32_t bits;
  static constexpr float kSmallest = 0x1p-100f;
  __device__ __forceinline__ float scale() const {
    return __uint_as_float(type == KvType::int4 ? bits << 16 : bits);
  }
  __device__ __forceinline__ float min() const {
    return type == KvType::int4 ? __uint_as_float(bits & 0xFFFF0000u) : 0.0f;
  }
  __device__ __forceinline__ float safe_scale() const {  // NaN stays NaN
    return scale() < kSmallest ? kSmallest : scale();
  }
};

// Of pairs of tokens in the fragments of V, those up to the last valid one: what lies beyond the
// sequence is anything, and zero times anything may be NaN. `valid` counts the tile's tokens.
__device__ __forceinline__ void clear_beyond(uint32_t (&v)[4][4], int valid, int q) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int token = 2 * q + 8 * h;
    const uint32_t keep = token + 1 < valid ? ~0u : token < valid ? 0xFFFFu : 0u;
#pragma unroll
    for (int c = 0; c < 4; ++c) v[c][2 * h] &= keep, v[c][2 * h + 1] &= keep;
  }
}

// 2^x.
__device__ __forceinline__ float power2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two numbers as a pair of the type that meets the cache's; rest: what the rounding left.
template <KvType type>
__device__ __forceinline__ uint32_t rounded_pair(float x, float y) {
  if constexpr (type == KvType::bf16) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
    return *reinterpret_cast<const uint32_t*>(&pair);
  } else {
    const __half2 pair = __floats2half2_rn(x, y);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
}
template <KvType type>
__device__ __forceinline__ float2 widened_pair(uint32_t pair) {
  if constexpr (type == KvType::bf16) {
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pair));
  } else {
    return __half22float2(*reinterpret_cast<const __half2*>(&pair));
  }
}

}  // namespace tandem
