// Words of eight 4-bit codes as the A fragment of an f16 mma: bytes 0 and 2 are row r, bytes 1 and 3
// row r + 8; a byte's lower nibble belongs to the first half of the mma's channels, its upper one to
// the second. A code between the bits of 1024 is 1024 + code, or 1024 + 16 code: no conversion.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace tandem {

// (a & mask) | 1024 in both halves.
template <uint32_t kMask>
__device__ __forceinline__ uint32_t with_exponent(uint32_t a) {
  uint32_t out;
  asm("lop3.b32 %0, %1, %2, 0x64006400, 0xEA;" : "=r"(out) : "r"(a), "n"(kMask));
  return out;
}

__device__ __forceinline__ uint32_t add_half2(uint32_t a, uint32_t b) {
  uint32_t out;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
  return out;
}
__device__ __forceinline__ uint32_t fma_half2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t out;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(c));
  return out;
}

// a[0 .. 3] = codes - 8, exact.
__device__ __forceinline__ void decode_nibbles(uint32_t word, uint32_t (&a)[4]) {
  constexpr uint32_t kMinus1032 = 0xE408E408, kSixteenth = 0x2C002C00, kMinus72 = 0xD480D480;
  const uint32_t next = word >> 8;
  a[0] = add_half2(with_exponent<0x000F000F>(word), kMinus1032);
  a[2] = fma_half2(with_exponent<0x00F000F0>(word), kSixteenth, kMinus72);
  a[1] = add_half2(with_exponent<0x000F000F>(next), kMinus1032);
  a[3] = fma_half2(with_exponent<0x00F000F0>(next), kSixteenth, kMinus72);
}

}  // namespace tandem
