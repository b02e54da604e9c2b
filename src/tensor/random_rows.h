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

// What random rows of K elements are made of, so that a row times a vector keeps its size. In the
// order of its bytes: near_normal(word) * deviation in `numbers`, or else random bytes, every block
// of them with the same header; behind them the places of 2:4; in a plane of their own the scales,
// all alike.
struct RandomRows {
  enum class Numbers : uint8_t { none, bf16, f16, e4m3 };
  static constexpr int64_t kMostHeader = 20;

  int64_t K = 0;
  uint64_t seed = 0;
  int64_t row_bytes = 0;
  Numbers numbers = Numbers::none;
  int64_t count = 0;  // of numbers
  float deviation = 0;
  int64_t code_bytes = 0;   // where there are no numbers
  int64_t block_bytes = 0;  // of codes with one header; 0: none have
  int64_t header_at = 0, header_bytes = 0;
  uint8_t header[kMostHeader] = {};
  int64_t place_bytes = 0;
  int64_t groups = 0;       // scales of a row; 0: none
  int64_t scale_bytes = 0;  // of one of them
  uint32_t scale = 0;       // as stored, in the low bytes
};

// Byte `at` of a row's codes: of random words in their order, or of the header.
TANDEM_HOST_AND_DEVICE inline uint8_t random_code(const RandomRows& rows, uint64_t row_key,
                                                  int64_t at) {
  if (rows.block_bytes > 0) {
    const int64_t in_header = at % rows.block_bytes - rows.header_at;
    if (in_header >= 0 && in_header < rows.header_bytes) return rows.header[in_header];
  }
  return static_cast<uint8_t>(random_word(row_key, at / 8) >> (at % 8 * 8));
}

// Byte i of a row's places: two of the six nibbles of tensor/sparse.h, each equally often.
TANDEM_HOST_AND_DEVICE inline uint8_t random_places(const RandomRows& rows, uint64_t row_key,
                                                    int64_t i) {
  constexpr uint32_t kNibbles = 0xED9C84;  // kPlaces24
  const int64_t before = rows.count + (rows.code_bytes + 7) / 8;
  const auto pair = static_cast<uint32_t>(random_word(row_key, before + i) % 36);
  return static_cast<uint8_t>((kNibbles >> (pair % 6 * 4) & 15) | (kNibbles >> (pair / 6 * 4) & 15)
                                                                      << 4);
}

// K is a multiple of the encoding's block. False when nothing makes rows of this encoding.
bool random_rows_of(const Encoding& encoding, int64_t K, uint64_t seed, RandomRows& rows);

// Row n: data [row_bytes], scales [groups * scale_bytes].
void make_random_row(const RandomRows& rows, int64_t n, std::byte* data, std::byte* scales);

}  // namespace tandem
