// Random weights by position: number i of row n is a function of (seed, K, n, i) alone, so that a
// GPU makes a matrix in milliseconds and the host any single row of it, to the bit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/encoding.h"

#ifdef __CUDACC__
#define TANDEM_HOST_AND_DEVICE __host__ __device__
#else
#define TANDEM_HOST_AND_DEVICE
#endif

namespace tandem {

TANDEM_HOST_AND_DEVICE inline uint64_t random_row_key(uint64_t seed, int64_t K, int64_t n) {
  return seed ^ static_cast<uint64_t>(n) * 0xD1342543DE82EF95ull ^ static_cast<uint64_t>(K) << 40;
}

// Number i of the row, as the generator SplitMix64 seeded with the key gives it.
TANDEM_HOST_AND_DEVICE inline uint64_t random_word(uint64_t row_key, int64_t i) {
  uint64_t z = row_key + static_cast<uint64_t>(i + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// Sum of four uniform 16-bit numbers: normal enough, and the same on every machine. Of deviation 1.
TANDEM_HOST_AND_DEVICE inline float near_normal(uint64_t word) {
  const int64_t sum = static_cast<int64_t>((word & 0xFFFF) + (word >> 16 & 0xFFFF) +
                                           (word >> 32 & 0xFFFF) + (word >> 48));
  return static_cast<float>(sum - 2 * 65535) * (1.0f / 37837.0f);
}

// What random rows of K elements are made of, so that a row times a vector keeps its size: plain
// numbers near_normal(word) * deviation; else random codes under one scale and minimum.
struct RandomRows {
  Packing packing = Packing::f32;
  int64_t K = 0;
  uint64_t seed = 0;
  int64_t row_bytes = 0;
  int64_t block_bytes = 0;  // of 32 elements that begin with scale and minimum; 0: no such blocks
  int64_t groups = 0;       // scales of a row in a plane of their own; 0: none
  int64_t scale_bytes = 0;  // of one of them
  float deviation = 0;
  uint32_t scale = 0, min = 0;  // as stored, in the low bytes
  bool has_min = false;
};

// False when rows of this encoding are not made this way. K is a multiple of the block.
bool random_rows_of(const Encoding& encoding, int64_t K, uint64_t seed, RandomRows& rows);

// Row n: data [row_bytes], scales [groups * scale_bytes].
void make_random_row(const RandomRows& rows, int64_t n, std::byte* data, std::byte* scales);

}  // namespace tandem
