// 2:4 rows: of each group of four neighbouring elements two are kept, and a nibble says where they
// stood: the place of the first in its two low bits, of the second in its two high bits, first <
// second. Group g of a row has nibble g % 2 (low first) of byte g / 2. Six of sixteen nibbles are
// places; a group with fewer than two elements that are not zero names two places all the same.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/weight.h"

namespace tandem {

// Places 01, 02, 03, 12, 13, 23.
inline constexpr uint8_t kPlaces24[6] = {0x4, 0x8, 0xC, 0x9, 0xD, 0xE};

constexpr bool are_places(int nibble) { return (nibble & 3) < nibble >> 2; }

// The nibble of group g in a row's places.
constexpr int places_of(const uint8_t* places, int64_t g) {
  return places[g / 2] >> (g % 2 * 4) & 15;
}

// The places of row n, which lie behind its values. The weight's encoding is sparse and it has no
// mask: CHECKed.
const uint8_t* row_places(const Weight& weight, int64_t n);

// The nibbles of a row, wherever the weight keeps them.
class RowPlaces {
 public:
  RowPlaces(const Weight& weight, int64_t n);
  // Of group g; 0, no places, where a mask keeps another number of the four elements than two.
  int of(int64_t g) const;

 private:
  const uint8_t* bytes_;
  bool is_mask_;
};

// A weight with a mask -> the same one with its places behind the values, as kernels want it:
// out[N * encoding.row_bytes(K)], which the result points to.
Weight with_places(const Weight& weight, std::byte* out);

// The places of a row of K elements, K / 8 bytes, as a mask: bit k % 8 of byte k / 8 is set where
// element k is kept.
void mask_of_places(const std::byte* places, int64_t K, std::byte* mask);

// The first group of the row whose nibble is no places; -1: none.
int64_t first_bad_places(const Weight& weight, int64_t n);

// row[K] -> a row of bf16_24 or f16_24, encoding.row_bytes(K) bytes: of each group the two largest
// magnitudes, of equals the higher places. K % 8 == 0: CHECKed.
void prune_row(const Encoding& encoding, std::span<const float> row, std::byte* out);

}  // namespace tandem
