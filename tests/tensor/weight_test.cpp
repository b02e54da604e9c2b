// Golden bits of each packing: rows written by hand, decoded by the scalar law.
#include "tensor/weight.h"

#include <gtest/gtest.h>

#include <cmath>
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

TEST(Weight, Q4_0) {
  Bytes b;
  b.u16(float_to_f16(-0.5f));
  for (int j = 0; j < 16; ++j) b.u8(j | (15 - j) << 4);
  const Weight w{kQ4_0, 1, 32, b.data.data()};
  ASSERT_EQ(w.total_bytes(), 18u);
  float row[32];
  decode_row(w, 0, row);
  for (int j = 0; j < 16; ++j) {
    EXPECT_EQ(row[j], -0.5f * static_cast<float>(j - 8));
    EXPECT_EQ(row[j + 16], -0.5f * static_cast<float>(7 - j));
  }
  EXPECT_TRUE(std::signbit(row[8])) << "zero times a negative scale, as GGUF's decoder gives it";
  expect_codes_match(w, 0);
}

TEST(Weight, Q5HasItsFifthBitsInFront) {
  for (const Encoding& encoding : {kQ5_0, kQ5_1}) {
    const bool has_min = encoding == kQ5_1;
    Bytes b;
    b.u16(float_to_f16(0.25f));
    if (has_min) b.u16(float_to_f16(-3.0f));
    for (const int byte : {0x01, 0x00, 0x00, 0x80}) b.u8(byte);  // elements 0 and 31
    for (int j = 0; j < 16; ++j) b.u8(j | 2 << 4);
    const Weight w{encoding, 1, 32, b.data.data()};
    ASSERT_EQ(w.total_bytes(), has_min ? 24u : 22u);
    float row[32];
    decode_row(w, 0, row);
    const float base = has_min ? -3.0f : -4.0f;
    EXPECT_EQ(row[0], base + 0.25f * 16);
    EXPECT_EQ(row[15], base + 0.25f * 15);
    EXPECT_EQ(row[30], base + 0.25f * 2);
    EXPECT_EQ(row[31], base + 0.25f * 18);
    expect_codes_match(w, 0);
  }
}

TEST(Weight, IQ4_NLReadsItsCodeBook) {
  Bytes b;
  b.u16(float_to_f16(2.0f));
  for (int j = 0; j < 16; ++j) b.u8(j);
  const Weight w{kIQ4_NL, 1, 32, b.data.data()};
  ASSERT_EQ(w.total_bytes(), 18u);
  float row[32];
  decode_row(w, 0, row);
  EXPECT_EQ(row[0], -254.0f);
  EXPECT_EQ(row[8], 2.0f);
  EXPECT_EQ(row[15], 226.0f);
  EXPECT_EQ(row[31], -254.0f);
  expect_codes_match(w, 0);
}

// Elements chosen so that each plane of a super-block, and both halves of the 6-bit integers, are read.
TEST(Weight, Q4_K) {
  std::vector<std::byte> data(144);
  const auto set = [&](size_t at, int value) { data[at] = static_cast<std::byte>(value); };
  store_scale(&data[0], ScaleType::f16, 0.5f);
  store_scale(&data[2], ScaleType::f16, 0.25f);
  set(4, 0x80 | 3);   // scale 0 is 3; upper bits of scale 4: 2
  set(8, 0x40 | 5);   // min 0 is 5; upper bits of min 4: 1
  set(12, 0x70 | 9);  // lower bits of scale 4: 9, of min 4: 7
  set(16, 0x0B);      // element 0 is 11, element 32 is 0
  set(80, 0x0D);      // element 128 is 13
  const Weight w{kQ4_K, 1, 256, data.data()};
  ASSERT_EQ(w.total_bytes(), 144u);
  std::vector<float> row(256);
  decode_row(w, 0, row.data());
  EXPECT_EQ(row[0], 0.5f * 3 * 11 - 0.25f * 5);
  EXPECT_EQ(row[1], -0.25f * 5);
  EXPECT_EQ(row[128], 0.5f * 41 * 13 - 0.25f * 23);
  expect_codes_match(w, 0);
}

TEST(Weight, Q6_K) {
  std::vector<std::byte> data(210);
  const auto set = [&](size_t at, int value) { data[at] = static_cast<std::byte>(value); };
  store_scale(&data[208], ScaleType::f16, 0.5f);
  set(192, 3);
  set(196, -128);
  set(0, 0xA7);         // elements 0 and 64, lower bits 7 and 10
  set(128, 0x31);       // their upper bits: 1 and 3
  const Weight w{kQ6_K, 1, 256, data.data()};
  ASSERT_EQ(w.total_bytes(), 210u);
  std::vector<float> row(256);
  decode_row(w, 0, row.data());
  EXPECT_EQ(row[0], 0.5f * 3 * (23 - 32));
  EXPECT_EQ(row[64], 0.5f * -128 * (58 - 32));
  expect_codes_match(w, 0);
}

// Any bits at all: the two decoders agree.
TEST(Weight, SuperBlocksAsCodes) {
  for (const Encoding& encoding : {kQ2_K, kQ3_K, kQ4_K, kQ5_K, kQ6_K}) {
    SCOPED_TRACE(encoding.name());
    std::vector<std::byte> data(encoding.row_bytes(512));
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 37 % 60);  // no NaN in f16
    expect_codes_match({encoding, 1, 512, data.data()}, 0);
  }
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

TEST(Weight, Fp8ChannelHasAScaleARow) {
  Bytes b, scales;
  for (const int code : {0x38, 0xB8, 0x01, 0x7E, 0x80, 0x3C}) b.u8(code);
  scales.u16(float_to_bf16(1.0f));
  scales.u16(float_to_bf16(0.5f));
  for (const Encoding& encoding : {fp8_channel(ScaleType::bf16), fp8_weight(ScaleType::bf16)}) {
    const Weight w{encoding, 2, 3, b.data.data(), scales.data.data()};
    float row[3];
    decode_row(w, 0, row);
    EXPECT_EQ(row[0], 1.0f);
    EXPECT_EQ(row[1], -1.0f);
    EXPECT_EQ(row[2], 0x1p-9f);
    decode_row(w, 1, row);
    EXPECT_EQ(row[0], 224.0f);
    EXPECT_EQ(row[1], 0.0f);
    EXPECT_EQ(row[2], 0.75f);
  }
}

TEST(Weight, TablesHaveTheFirstChannelInTheHighNibble) {
  Bytes b, scales;
  for (int i = 0; i < 32; ++i) b.u8(i == 0 ? 0xF0 : i == 31 ? 0x3B : 0x77);
  for (const int byte : {0x00, 0x00, 0x00, 0x40}) scales.u8(byte);  // 2.0f
  float row[64];
  decode_row({kNF4, 1, 64, b.data.data(), scales.data.data()}, 0, row);
  EXPECT_EQ(row[0], 2.0f);
  EXPECT_EQ(row[1], -2.0f);
  EXPECT_EQ(row[2], 0.0f);
  EXPECT_EQ(row[62], 2 * -0.39491748809814453f);
  EXPECT_EQ(row[63], 2 * 0.33791524171829224f);
  decode_row({kFP4, 1, 64, b.data.data(), scales.data.data()}, 0, row);
  EXPECT_EQ(row[0], -0.5f);
  EXPECT_EQ(row[1], 0.0f);
  EXPECT_EQ(row[2], 0.5f);
  EXPECT_EQ(row[62], 2.0f);
  EXPECT_EQ(row[63], -2.0f);
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
  expect_finite(fp8_channel(ScaleType::bf16), 8, 0, bf16_nan, false);
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
