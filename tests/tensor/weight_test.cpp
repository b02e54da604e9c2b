// Golden bits of each packing: rows written by hand, decoded by the scalar law.
#include "tensor/weight.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/finite.h"

namespace tandem {
namespace {

struct Bytes {
  std::vector<std::byte> data;
  void u8(int v) { data.push_back(static_cast<std::byte>(v)); }
  void u16(uint16_t v) {
    u8(v & 255);
    u8(v >> 8);
  }
};

// The two decoders must tell the same numbers.
void expect_codes_match(const Weight& w, int64_t n) {
  std::vector<float> row(static_cast<size_t>(w.K)), scales(row.size()), mins(row.size());
  std::vector<uint8_t> codes(row.size());
  decode_row(w, n, row.data());
  decode_row_codes(w, n, codes.data(), scales.data(), mins.data());
  const int64_t group = w.encoding.group == 0 ? w.K : w.encoding.group;
  for (int64_t k = 0; k < w.K; ++k) {
    const float value = static_cast<float>(codes[k]) * scales[k / group] + mins[k / group];
    EXPECT_NEAR(row[k], value, 1e-5f * (std::abs(mins[k / group]) + 1)) << k;
  }
}

TEST(Weight, Q4_1) {
  Bytes b;
  b.u16(float_to_f16(0.5f));
  b.u16(float_to_f16(-1.0f));
  for (int j = 0; j < 16; ++j) b.u8(j | (15 - j) << 4);  // element j = j, element j + 16 = 15 - j
  Weight w{kQ4_1, 1, 32, b.data.data()};
  ASSERT_EQ(w.total_bytes(), 20u);
  float row[32];
  decode_row(w, 0, row);
  for (int j = 0; j < 16; ++j) {
    EXPECT_EQ(row[j], 0.5f * static_cast<float>(j) - 1.0f);
    EXPECT_EQ(row[j + 16], 0.5f * static_cast<float>(15 - j) - 1.0f);
  }
  expect_codes_match(w, 0);
}

TEST(Weight, Q8_0) {
  Bytes b;
  b.u16(float_to_f16(0.25f));
  for (int j = 0; j < 32; ++j) b.u8(j == 5 ? 0x80 : j - 16);
  Weight w{kQ8_0, 1, 32, b.data.data()};
  ASSERT_EQ(w.total_bytes(), 34u);
  float row[32];
  decode_row(w, 0, row);
  EXPECT_EQ(row[0], -4.0f);
  EXPECT_EQ(row[5], -32.0f);
  EXPECT_EQ(row[31], 3.75f);
  expect_codes_match(w, 0);
}

TEST(Weight, Int4GroupPacksLowNibbleFirst) {
  // compressed-tensors' golden words: signed -8..-1 is 0x76543210, 0..7 is 0xfedcba98.
  Bytes b;
  for (int word = 0; word < 4; ++word) {
    for (const int v : {0x10, 0x32, 0x54, 0x76}) b.u8(word % 2 == 0 ? v : v | 0x88);
  }
  Bytes scales;
  scales.u16(float_to_bf16(2.0f));
  Weight w{int4_group(32, ScaleType::bf16), 1, 32, b.data.data(), scales.data.data()};
  float row[32];
  decode_row(w, 0, row);
  for (int k = 0; k < 32; ++k) EXPECT_EQ(row[k], 2.0f * static_cast<float>(k % 16 - 8)) << k;
  expect_codes_match(w, 0);
}

TEST(Weight, Int8ChannelHasAScaleARow) {
  Bytes b, scales;
  for (int k = 0; k < 6; ++k) b.u8(k - 3);
  scales.u16(float_to_bf16(1.0f));
  scales.u16(float_to_bf16(0.5f));
  Weight w{int8_channel(ScaleType::bf16), 2, 3, b.data.data(), scales.data.data()};
  float row[3];
  decode_row(w, 1, row);
  EXPECT_EQ(row[0], 0.0f);
  EXPECT_EQ(row[2], 1.0f);
  expect_codes_match(w, 1);
}

// Spoils 2 or 4 bytes of a row of zeros at a time; the row must be refused if and only if `wanted`.
void expect_finite(const Encoding& encoding, int64_t K, size_t offset, const std::string& bytes,
                   bool wanted) {
  std::vector<std::byte> data(2 * encoding.row_bytes(K));
  std::vector<std::byte> scales(2 * 2 * static_cast<size_t>(encoding.groups_per_row(K)));
  const bool has_plane = encoding.packing >= Packing::int8_channel;
  std::byte* row = has_plane ? scales.data() + scales.size() / 2 : data.data() + data.size() / 2;
  std::memcpy(row + offset, bytes.data(), bytes.size());
  const Weight w{encoding, 2, K, data.data(), has_plane ? scales.data() : nullptr};
  EXPECT_TRUE(row_is_finite(w, 0)) << encoding.name();
  EXPECT_EQ(row_is_finite(w, 1), wanted) << encoding.name() << " at " << offset;
}

TEST(Weight, FindsNumbersThatAreNotFinite) {
  const std::string f16_nan("\x00\x7e", 2), f16_inf("\x00\xfc", 2), f16_max("\xff\x7b", 2);
  const std::string bf16_nan("\xc0\x7f", 2), bf16_inf("\x80\xff", 2), bf16_max("\x7f\x7f", 2);
  for (const size_t offset : {0, 2, 20, 22}) {  // the scales and minimums of two blocks
    expect_finite(kQ4_1, 64, offset, f16_nan, false);
    expect_finite(kQ4_1, 64, offset, f16_inf, false);
    expect_finite(kQ4_1, 64, offset, f16_max, true);
  }
  expect_finite(kQ4_1, 64, 4, f16_nan, true);  // codes
  expect_finite(kQ8_0, 64, 34, f16_inf, false);
  expect_finite(kQ8_0, 64, 36, f16_inf, true);
  expect_finite(kF32, 3, 10, f16_nan, true);  // the upper half of a float: 1.7e38
  expect_finite(kF32, 3, 10, bf16_nan, false);
  expect_finite(kF16, 3, 4, f16_inf, false);
  expect_finite(kF16, 3, 4, f16_max, true);
  expect_finite(kBF16, 3, 4, bf16_inf, false);
  expect_finite(kBF16, 3, 4, bf16_max, true);
  expect_finite(int8_channel(ScaleType::bf16), 8, 0, bf16_nan, false);
  expect_finite(int4_group(32, ScaleType::f16), 64, 2, f16_inf, false);
  expect_finite(int4_group(32, ScaleType::f16), 64, 2, f16_max, true);
}

TEST(Weight, InterleavedHeadsAreReadInHalfSplitOrder) {
  std::vector<float> data(8 * 1);
  for (int n = 0; n < 8; ++n) data[n] = static_cast<float>(n);
  Weight w{kF32, 8, 1, reinterpret_cast<const std::byte*>(data.data())};
  w.interleaved_head = 4;  // two heads of four rows
  const float expected[] = {0, 2, 1, 3, 4, 6, 5, 7};
  for (int n = 0; n < 8; ++n) {
    float value;
    decode_row(w, n, &value);
    EXPECT_EQ(value, expected[n]);
  }
}

}  // namespace
}  // namespace tandem
