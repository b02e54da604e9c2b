// 2:4 masks: which two of four stay, ties and rows of zeros, the control's odds.
#include "compress/mask24.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <map>

#include "base/random.h"
#include "tensor/sparse.h"

namespace tandem {
namespace {

std::vector<uint8_t> largest(std::vector<float> row) {
  std::vector<uint8_t> kept(row.size() / 4);
  keep_largest_of_row(row, kept);
  return kept;
}

TEST(Mask24, KeepsTheTwoLargestMagnitudes) {
  EXPECT_EQ(largest({1, -4, 3, 2}), std::vector<uint8_t>{0x6});
  EXPECT_EQ(largest({-9, 1, 2, 8, 0, 0, -1, 0.5f}), (std::vector<uint8_t>{0x9, 0xC}));
}

// Of equals the lower index goes first: four zeros keep the last two.
TEST(Mask24, PrunesTheLowerIndexOfEquals) {
  EXPECT_EQ(largest({0, 0, 0, 0}), std::vector<uint8_t>{0xC});
  EXPECT_EQ(largest({1, 1, -1, 1}), std::vector<uint8_t>{0xC});
  EXPECT_EQ(largest({2, 1, 1, 1}), std::vector<uint8_t>{0x9});
  EXPECT_EQ(largest({1, 2, 1, 0}), std::vector<uint8_t>{0x6});
  EXPECT_EQ(largest({0, -0.0f, 3, 0}), std::vector<uint8_t>{0xC});
}

// Every order of four scores with ties, against sorting.
TEST(Mask24, AgreesWithSortingForEveryTie) {
  for (int code = 0; code < 256; ++code) {
    float scores[4];
    int order[4] = {0, 1, 2, 3};
    for (int j = 0; j < 4; ++j) scores[j] = static_cast<float>(code >> (2 * j) & 3);
    std::stable_sort(order, order + 4, [&](int a, int b) { return scores[a] < scores[b]; });
    EXPECT_EQ(keep_highest(scores), 1 << order[2] | 1 << order[3]) << code;
  }
}

TEST(Mask24, AgreesWithTheSparseEncoding) {
  Random random(7);
  std::vector<float> row(64);
  for (float& w : row) w = static_cast<float>(static_cast<int>(random.below(5)) - 2);
  std::vector<uint8_t> kept(16);
  keep_largest_of_row(row, kept);
  std::vector<std::byte> packed(kBF16_24.row_bytes(64));
  prune_row(kBF16_24, row, packed.data());
  std::vector<float> decoded(64);
  decode_row({kBF16_24, 1, 64, packed.data()}, 0, decoded.data());
  apply_mask_row(kept, row);
  EXPECT_EQ(row, decoded);
}

TEST(Mask24, RandomMasksAreSeededAndEvenlySpread) {
  std::vector<uint8_t> kept(6000), again(6000), other_row(6000);
  keep_random_of_row(1, 5, kept);
  keep_random_of_row(1, 5, again);
  keep_random_of_row(1, 6, other_row);
  EXPECT_EQ(kept, again);
  EXPECT_NE(kept, other_row);
  std::map<uint8_t, int> counts;
  for (const uint8_t group : kept) {
    EXPECT_EQ(std::popcount(group), 2);
    ++counts[group];
  }
  ASSERT_EQ(counts.size(), 6u);
  for (const auto& [pattern, count] : counts) EXPECT_NEAR(count, 1000, 150) << int{pattern};
}

TEST(Mask24, ApplyZeroesThePruned) {
  std::vector<float> row = {1, 2, 3, 4, 5, 6, 7, 8};
  const std::vector<uint8_t> kept = {0x9, 0x6};
  apply_mask_row(kept, row);
  EXPECT_EQ(row, (std::vector<float>{1, 0, 0, 4, 0, 6, 7, 0}));
}

}  // namespace
}  // namespace tandem
