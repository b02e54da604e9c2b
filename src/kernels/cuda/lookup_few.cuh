// nf4 and fp4 against up to four tokens, in the walk of few_tokens.cuh: products and sums are those
// of lookup_ring.cuh. Shared memory has the table of pairs, then x [T][pieces, 256 bytes each, and
// 64]: of each group first the first eight channels of the four lanes, then the others.
//
// Lost in the table's place: its numbers as two planes of 7 bits that byte permutations look up,
// the tokens in bytes as for int4 (4 %).
#pragma once

#include "kernels/cuda/few_tokens.cuh"
#include "kernels/cuda/lookup_ring.cuh"

namespace tandem {

struct LookupFew {
  static constexpr int kGroups = LookupPiece::kGroups;
  static constexpr int kBytes = LookupPiece::kBytes;
  static constexpr int kPartPieces = 32;
  static constexpr int kMostTokens = 4;
  static constexpr int kBlockBytes = 106 * 1024, kStaticBytes = kPairs * 128;
  struct Constants {
    float values[16];
  };

  static __device__ __forceinline__ uint32_t* table() {
    __shared__ uint32_t pairs[kPairs * 32];
    return pairs;
  }
  static __device__ __forceinline__ void prepare(const Constants& constants) {
    fill_table(table(), constants.values);
  }

  static __host__ __device__ int stride(int pieces) { return pieces * 256 + 64; }
  static __host__ __device__ int x_bytes(int T, int pieces) { return T * stride(pieces); }
  static __device__ __forceinline__ void load_x(const Few<LookupFew>& p, int first, int count,
                                                uint8_t* x) {
    for_each_chunk(p, first, count, [&](int t, int c, const uint4& v) {
      if (c >= count * 16) return;
      uint8_t* to = x + t * stride(p.held) + c / 8 * 128;
      *reinterpret_cast<uint4*>(to + c % 2 * 64 + c % 8 / 2 * 16) = v;
    });
  }

  struct Column {
    const uint8_t* x;
    uint32_t mine;  // the lane's column of the table, in shared memory
    __device__ __forceinline__ Column(const Few<LookupFew>& p, const uint8_t* shared, int lane)
        : x(shared + min(lane / 4, p.T - 1) * stride(p.held) + lane % 4 * 16),
          mine(shared_address(table()) + lane * 4) {}
    // That of byte kByte of a word, by two instructions and the load.
    template <int kByte>
    __device__ __forceinline__ uint32_t pair(uint32_t codes) const {
      const uint32_t byte = __byte_perm(codes, 0, 0x4440 + kByte);
      uint32_t found;
      asm("ld.shared.u32 %0, [%1];" : "=r"(found) : "r"(byte * 128 + mine));
      return found;
    }
  };
  struct Tokens {
    uint4 x[kGroups][2];
    __device__ __forceinline__ void load(const Column& column, int piece) {
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        const auto* from = reinterpret_cast<const uint4*>(column.x + piece * 256 + g * 128);
        x[g][0] = from[0], x[g][1] = from[4];
      }
    }
  };
  struct Sums {
    float v[4];
  };

  static __device__ __forceinline__ void multiply(const uint8_t* piece, int lane,
                                                  const Tokens& tokens, const Column& column,
                                                  Sums& sums) {
    const uint4 a = reinterpret_cast<const uint4*>(piece)[lane];
    const uint4 c = reinterpret_cast<const uint4*>(piece)[lane + 32];
    const auto* absmax =
        reinterpret_cast<const float*>(piece + LookupPiece::kAbsmaxAt) + lane / 4 * kGroups;
    const float2 upper = *reinterpret_cast<const float2*>(absmax);
    const float2 lower = *reinterpret_cast<const float2*>(absmax + 8 * kGroups);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      uint32_t rows[4][4];
      const auto pair = [&](auto byte, uint32_t codes) {
        return column.template pair<byte()>(codes);
      };
      load_group(g == 0 ? uint2{a.x, a.y} : uint2{a.z, a.w},
                 g == 0 ? uint2{c.x, c.y} : uint2{c.z, c.w}, pair, rows);
      float part[4] = {};
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        const uint4& b = tokens.x[g][s / 2];
        MmaBf16::run(part, rows[s][0], rows[s][1], rows[s][2], rows[s][3], word(b, s % 2 * 2),
                     word(b, s % 2 * 2 + 1));
      }
      const float scale = g == 0 ? upper.x : upper.y, scale8 = g == 0 ? lower.x : lower.y;
      sums.v[0] += part[0] * scale, sums.v[1] += part[1] * scale;
      sums.v[2] += part[2] * scale8, sums.v[3] += part[3] * scale8;
    }
  }
  static __device__ __forceinline__ void publish(const Sums& sums, float* to, int T, int lane) {
    const int r = lane / 4, q = lane % 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int t = 2 * q + i % 2;
      if (t < T) to[t * kTileRows + r + i / 2 * 8] = sums.v[i];
    }
  }
};

}  // namespace tandem
