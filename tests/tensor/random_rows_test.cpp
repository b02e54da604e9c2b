// Random rows: a row depends on its place alone, is SplitMix64's, and holds no number that is not
// finite.
#include "tensor/random_rows.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "base/random.h"
#include "tensor/dtype.h"
#include "tensor/finite.h"
#include "tensor/sparse.h"
#include "tensor/weight.h"

namespace tandem {
namespace {

TEST(RandomRows, WordsAreSplitMix64ByPosition) {
  Random sequence(99);
  for (int64_t i = 0; i < 100; ++i) EXPECT_EQ(random_word(99, i), sequence.next());
}

TEST(RandomRows, ARowIsAFunctionOfItsPlace) {
  for (const Encoding& encoding :
       {kBF16, kF16, int8_channel(ScaleType::bf16), kLlmInt8, kQ4_0, kQ4_1, kQ8_0, kQ4_K, kQ6_K,
        kNF4, kFP4, fp8_channel(ScaleType::bf16), fp8_weight(ScaleType::bf16), kBF16_24, kF16_24,
        int4_group(32, ScaleType::f16), int4_group(128, ScaleType::f32),
        int4_group_24(128, ScaleType::f16)}) {
    SCOPED_TRACE(encoding.name());
    constexpr int64_t kK = 1280;
    RandomRows rows;
    ASSERT_TRUE(random_rows_of(encoding, kK, 5, rows));
    std::vector<std::byte> data(static_cast<size_t>(rows.row_bytes)), again(data.size());
    std::vector<std::byte> scales(static_cast<size_t>(rows.groups * rows.scale_bytes)),
        other(scales.size());
    make_random_row(rows, 128255, data.data(), scales.data());
    make_random_row(rows, 7, again.data(), other.data());
    EXPECT_NE(data, again);
    make_random_row(rows, 128255, again.data(), other.data());
    EXPECT_EQ(data, again);
    EXPECT_EQ(scales, other);

    const Weight weight{encoding, 1, kK, data.data(), scales.empty() ? nullptr : scales.data()};
    EXPECT_TRUE(row_is_finite(weight, 0));
    if (encoding.is_sparse()) {
      EXPECT_EQ(first_bad_places(weight, 0), -1);
    }
    std::vector<float> values(kK);
    decode_row(weight, 0, values.data());
    double squares = 0;
    for (const float value : values) squares += static_cast<double>(value) * value;
    EXPECT_NEAR(squares, 1.0, 0.15);
  }
}

TEST(RandomRows, PlainNumbersAreTheWordsOfTheirPlace) {
  RandomRows rows;
  ASSERT_TRUE(random_rows_of(kBF16, 64, 3, rows));
  std::vector<uint16_t> row(64);
  make_random_row(rows, 11, reinterpret_cast<std::byte*>(row.data()), nullptr);
  const uint64_t key = random_row_key(3, 64, 11);
  for (int64_t k = 0; k < 64; ++k) {
    EXPECT_EQ(row[static_cast<size_t>(k)],
              float_to_bf16(near_normal(random_word(key, k)) * rows.deviation));
  }
}

TEST(RandomRows, CodesAreThoseOfTheirPlace) {
  for (const Encoding& encoding :
       {kQ4_0, kQ4_1, kQ8_0, kQ4_K, kQ6_K, int4_group(32, ScaleType::f16)}) {
    RandomRows rows;
    ASSERT_TRUE(random_rows_of(encoding, 768, 4, rows));
    std::vector<std::byte> row(static_cast<size_t>(rows.row_bytes)), scales(1024);
    make_random_row(rows, 9, row.data(), scales.data());
    const uint64_t key = random_row_key(4, 768, 9);
    for (int64_t at = 0; at < rows.code_bytes; ++at) {
      ASSERT_EQ(row[static_cast<size_t>(at)], static_cast<std::byte>(random_code(rows, key, at)))
          << encoding.name() << " byte " << at;
    }
  }
}

TEST(RandomRows, OtherEncodingsSaySo) {
  RandomRows rows;
  EXPECT_FALSE(random_rows_of(kQ5_K, 256, 1, rows));
}

}  // namespace
}  // namespace tandem
