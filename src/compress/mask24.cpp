#include "compress/mask24.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace tandem {

Mask24::Mask24(int64_t rows, int64_t columns) : N(rows), K(columns) {
  CHECK(N >= 0 && K >= 0 && K % 4 == 0, "N {} K {}", N, K);
  kept.resize(static_cast<size_t>(N * (K / 4)));
}

std::span<uint8_t> Mask24::row(int64_t n) {
  return std::span(kept).subspan(static_cast<size_t>(n * (K / 4)), static_cast<size_t>(K / 4));
}

std::span<const uint8_t> Mask24::row(int64_t n) const {
  return std::span(kept).subspan(static_cast<size_t>(n * (K / 4)), static_cast<size_t>(K / 4));
}

uint8_t keep_highest(const float* scores) {
  int first = 2, second = 3;  // places, of ascending score: the higher place wins a tie
  if (scores[first] > scores[second]) std::swap(first, second);
  for (const int i : {1, 0}) {
    if (scores[i] <= scores[first]) continue;
    first = i;
    if (scores[first] > scores[second]) std::swap(first, second);
  }
  return static_cast<uint8_t>(1 << first | 1 << second);
}

void keep_highest_of_row(std::span<const float> scores, std::span<uint8_t> kept) {
  CHECK(scores.size() == 4 * kept.size(), "{} scores, {} groups", scores.size(), kept.size());
  for (size_t g = 0; g < kept.size(); ++g) kept[g] = keep_highest(scores.data() + 4 * g);
}

void keep_largest_of_row(std::span<const float> row, std::span<uint8_t> kept) {
  CHECK(row.size() == 4 * kept.size(), "{} elements, {} groups", row.size(), kept.size());
  for (size_t g = 0; g < kept.size(); ++g) {
    float magnitudes[4];
    for (size_t j = 0; j < 4; ++j) magnitudes[j] = std::fabs(row[4 * g + j]);
    kept[g] = keep_highest(magnitudes);
  }
}

void keep_random_of_row(uint64_t seed, int64_t n, std::span<uint8_t> kept) {
  // A generator a row, started where the first one's stream does not come along.
  Random random(Random(seed + static_cast<uint64_t>(n) * 0xD1342543DE82EF95ull).next());
  for (uint8_t& group : kept) group = kPatterns24[random.below(6)];
}

void apply_mask_row(std::span<const uint8_t> kept, std::span<float> row) {
  CHECK(row.size() == 4 * kept.size(), "{} elements, {} groups", row.size(), kept.size());
  for (size_t k = 0; k < row.size(); ++k) {
    if ((kept[k / 4] >> (k % 4) & 1) == 0) row[k] = 0.0f;
  }
}

}  // namespace tandem
