// Which two of each four neighbouring elements of a row are kept: 2:4 masks, and those that need
// no calibration. Equal scores: the lower index is pruned first, as tensor/sparse.h has it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tandem {

struct Mask24 {
  int64_t N = 0, K = 0;       // K a multiple of 4
  std::vector<uint8_t> kept;  // [N, K/4]; bit j of a group's byte: element 4 * group + j is kept

  Mask24(int64_t rows, int64_t columns);  // keeps nothing yet
  std::span<uint8_t> row(int64_t n);
  std::span<const uint8_t> row(int64_t n) const;
  bool keeps(int64_t n, int64_t k) const {
    return row(n)[static_cast<size_t>(k / 4)] >> (k % 4) & 1;
  }
};

// The six bytes that keep two of four, in MaskLLM's order: 1100, 1010, 1001, 0110, 0101, 0011, the
// first digit being element 0.
inline constexpr uint8_t kPatterns24[6] = {0x3, 0x5, 0x9, 0x6, 0xA, 0xC};

// The byte that keeps the two highest of four scores. No score is NaN.
uint8_t keep_highest(const float* scores);

// kept[K/4] from scores[K]; K a multiple of 4: CHECKed.
void keep_highest_of_row(std::span<const float> scores, std::span<uint8_t> kept);

// The same by magnitude.
void keep_largest_of_row(std::span<const float> row, std::span<uint8_t> kept);

// One of the six patterns for each group, all as likely: the control that every method must beat.
// The same seed and row give the same mask on every machine.
void keep_random_of_row(uint64_t seed, int64_t n, std::span<uint8_t> kept);

// Zeroes what a row's mask prunes.
void apply_mask_row(std::span<const uint8_t> kept, std::span<float> row);

}  // namespace tandem
