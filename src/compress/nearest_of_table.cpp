#include "compress/nearest_of_table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/error.h"

namespace tandem {
namespace {

constexpr float kSmallestAbsmax = 1e-38f;

// The table in rising order: what code each place has, and what lies half way to the next.
struct Ladder {
  std::array<uint8_t, 16> codes;
  std::array<float, 15> bounds;
};

Ladder make_ladder(const float* values) {
  Ladder ladder;
  std::iota(ladder.codes.begin(), ladder.codes.end(), uint8_t{0});
  std::ranges::stable_sort(ladder.codes, {}, [&](uint8_t code) { return values[code]; });
  for (size_t i = 0; i < 15; ++i)
    ladder.bounds[i] = (values[ladder.codes[i]] + values[ladder.codes[i + 1]]) / 2;
  return ladder;
}

float block_absmax(const float* block, int64_t n) {
  float absmax = 0;
  for (int64_t i = 0; i < n; ++i) absmax = std::max(absmax, std::fabs(block[i]));
  return absmax;
}

}  // namespace

void table_absmax(const float* row, int64_t K, const Encoding& encoding, std::byte* absmax) {
  CHECK(encoding.is_lookup() && K % encoding.group == 0, "{} K {}", encoding.name(), K);
  for (int64_t k = 0; k < K; k += encoding.group, absmax += sizeof(float)) {
    const float value = block_absmax(row + k, encoding.group);
    std::memcpy(absmax, &value, sizeof value);
  }
}

void table_codes(const float* row, int64_t K, const Encoding& encoding, const float* values,
                 std::byte* codes) {
  CHECK(encoding.is_lookup() && K % encoding.group == 0, "{} K {}", encoding.name(), K);
  const Ladder ladder = make_ladder(values);
  for (int64_t begin = 0; begin < K; begin += encoding.group) {
    const float inverse =
        1.0f / std::max(block_absmax(row + begin, encoding.group), kSmallestAbsmax);
    const auto code_of = [&](int64_t k) {
      const float v = std::clamp(row[k] * inverse, -1.0f, 1.0f);
      size_t place = 0;
      for (const float bound : ladder.bounds) place += v > bound;
      return ladder.codes[place];
    };
    for (int64_t k = begin; k < begin + encoding.group; k += 2)
      codes[k / 2] = static_cast<std::byte>(code_of(k) << 4 | code_of(k + 1));
  }
}

}  // namespace tandem
