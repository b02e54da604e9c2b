// What the pieces share in which weights of 4 bits and 2:4 weights lie on the GPU.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace tandem {

// Of a piece of 16 rows, of 16 bits: its activations of a token are 256 bytes.
constexpr int kPieceChannels = 128;

// f16 or bf16.
__device__ __forceinline__ float scale_to_float(uint32_t bits, bool is_bf16) {
  return is_bf16 ? __uint_as_float(bits << 16)
                 : __half2float(__ushort_as_half(static_cast<uint16_t>(bits)));
}

// 16-bit scales of a piece, [8][kGroups][rows r and r + 8].
template <int kGroups>
struct PieceScales {
  uint32_t pairs[kGroups];

  static __device__ __forceinline__ int offset(int row, int group) {
    return (row % 8 * kGroups + group) * 4 + row / 8 * 2;
  }
  __device__ __forceinline__ void load(const uint8_t* scales, int lane) {
    const auto* mine = reinterpret_cast<const uint32_t*>(scales + offset(lane / 4, 0));
#pragma unroll
    for (int g = 0; g < kGroups; ++g) pairs[g] = mine[g];
  }
  // Of the upper and of the lower row of a lane.
  __device__ __forceinline__ float upper(int group, bool is_bf16) const {
    return scale_to_float(pairs[group] & 0xFFFF, is_bf16);
  }
  __device__ __forceinline__ float lower(int group, bool is_bf16) const {
    return scale_to_float(pairs[group] >> 16, is_bf16);
  }
  static __device__ float at(const uint8_t* scales, int row, int group, bool is_bf16) {
    return scale_to_float(*reinterpret_cast<const uint16_t*>(scales + offset(row, group)), is_bf16);
  }
  // A row's scale `unit` of a piece, from the file's `group`.
  static __device__ void pack(const uint8_t* from, int64_t stored, int64_t groups, int64_t group,
                              int row, int unit, uint8_t* to) {
    *reinterpret_cast<uint16_t*>(to + offset(row, unit)) =
        stored >= 0 && group < groups
            ? reinterpret_cast<const uint16_t*>(from)[stored * groups + group]
            : 0;
  }
};

// Zero points of a piece, a byte each, [8][kGroups][rows r and r + 8].
template <int kGroups>
struct PieceZeros {
  uint32_t pairs[kGroups];

  static __device__ __forceinline__ int offset(int row, int group) {
    return (row % 8 * kGroups + group) * 2 + row / 8;
  }
  __device__ __forceinline__ void load(const uint8_t* zeros, int lane) {
    const auto* mine = reinterpret_cast<const uint16_t*>(zeros + offset(lane / 4, 0));
#pragma unroll
    for (int g = 0; g < kGroups; ++g) pairs[g] = mine[g];
  }
  __device__ __forceinline__ uint32_t upper(int group) const { return pairs[group] & 255; }
  __device__ __forceinline__ uint32_t lower(int group) const { return pairs[group] >> 8; }
  static __device__ int at(const uint8_t* zeros, int row, int group) {
    return zeros[offset(row, group)];
  }
  static __device__ void pack(const uint8_t* from, int64_t stored, int64_t groups, int64_t group,
                              int row, int unit, uint8_t* to) {
    to[offset(row, unit)] =
        stored >= 0 && group < groups ? from[stored * groups + group] : uint8_t{0};
  }
};

}  // namespace tandem
