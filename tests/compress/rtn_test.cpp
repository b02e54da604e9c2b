// Round to nearest against hand-made rows and against rows that the compressed-tensors library
// encoded.
#include "compress/rtn.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

struct Int8Row {
  std::vector<int> codes;
  uint16_t scale;
};

Int8Row int8_row(const std::vector<float>& row) {
  std::vector<std::byte> codes(row.size());
  Int8Row out{{}, 0};
  const int64_t K = static_cast<int64_t>(row.size());
  rtn_codes(row.data(), K, int8_channel(ScaleType::bf16), codes.data());
  rtn_scales(row.data(), K, int8_channel(ScaleType::bf16),
             reinterpret_cast<std::byte*>(&out.scale));
  for (std::byte code : codes) out.codes.push_back(static_cast<int8_t>(code));
  return out;
}

struct Int4Row {
  std::vector<int32_t> packed;
  std::vector<uint16_t> scales;
};

Int4Row int4_row(const std::vector<float>& row, int64_t group) {
  const int64_t K = static_cast<int64_t>(row.size());
  Int4Row out{std::vector<int32_t>(row.size() / 8), std::vector<uint16_t>(row.size() / group)};
  const Encoding encoding = int4_group(group, ScaleType::bf16);
  rtn_codes(row.data(), K, encoding, reinterpret_cast<std::byte*>(out.packed.data()));
  rtn_scales(row.data(), K, encoding, reinterpret_cast<std::byte*>(out.scales.data()));
  return out;
}

TEST(Rtn, ScaleDividesByHalfTheRangeAndTheLargestPositiveWeightClips) {
  const Int8Row row = int8_row({127.5f, -127.5f, 0.5f, 1.5f, -0.5f, 0.0f, 2.5f, 100.0f});
  EXPECT_EQ(bf16_to_float(row.scale), 1.0f);
  // 127.5 and the halves tie and go to even: 128, which clips to 127.
  EXPECT_EQ(row.codes, (std::vector<int>{127, -128, 0, 2, 0, 0, 2, 100}));
}

TEST(Rtn, QuotientIsRoundedToBf16BeforeItBecomesACode) {
  // 64.5 / 0.99609375 = 64.75294, which bf16 (8 bits of mantissa) stores as 65.
  // 95.5 / 0.99609375 = 95.87451 -> 96; 85 / 0.99609375 = 85.33333 -> 85.5 -> tie to 86, not 85.
  const Int8Row row = int8_row({127.0f, 64.5f, 95.5f, 85.0f});
  EXPECT_EQ(bf16_to_float(row.scale), 0.99609375f);
  EXPECT_EQ(row.codes, (std::vector<int>{127, 65, 96, 86}));
}

TEST(Rtn, AllZeroRowHasTheEpsOfBf16AsScaleAndZeroCodes) {
  const Int8Row int8 = int8_row(std::vector<float>(32, 0.0f));
  EXPECT_EQ(bf16_to_float(int8.scale), 0.0078125f);
  EXPECT_EQ(int8.codes, std::vector<int>(32, 0));
  const Int4Row int4 = int4_row(std::vector<float>(32, 0.0f), 32);
  EXPECT_EQ(bf16_to_float(int4.scales[0]), 0.0078125f);
  EXPECT_EQ(int4.packed, std::vector<int32_t>(4, static_cast<int32_t>(0x88888888u)));
}

TEST(Rtn, PacksEightNibblesAWordLowFirst) {
  // The largest magnitude 7.5 gives scale 1; -7.5 is a tie and goes to -8.
  std::vector<float> row = {-7.5f, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
  row.resize(32, 0.0f);
  const Int4Row out = int4_row(row, 32);
  EXPECT_EQ(bf16_to_float(out.scales[0]), 1.0f);
  EXPECT_EQ(static_cast<uint32_t>(out.packed[0]), 0x76543210u);
  EXPECT_EQ(static_cast<uint32_t>(out.packed[1]), 0xfedcba98u);
}

struct Fp8Row {
  std::vector<int> codes;
  uint16_t scale;
};

Fp8Row fp8_row(const std::vector<float>& row) {
  std::vector<uint8_t> codes(row.size());
  Fp8Row out{{}, 0};
  const int64_t K = static_cast<int64_t>(row.size());
  const Encoding encoding = fp8_channel(ScaleType::bf16);
  rtn_codes(row.data(), K, encoding, reinterpret_cast<std::byte*>(codes.data()));
  rtn_scales(row.data(), K, encoding, reinterpret_cast<std::byte*>(&out.scale));
  out.codes.assign(codes.begin(), codes.end());
  return out;
}

TEST(Rtn, TheLargestOfARowIsTheLargestE4M3) {
  const Fp8Row row = fp8_row({448.0f, -448.0f, 1.0f, -0.0f, 17.0f, 19.0f, 0x1p-10f, 0x1.8p-9f});
  EXPECT_EQ(bf16_to_float(row.scale), 1.0f);
  // 17 and 19 lie half way between neighbours, as do the last two, which are subnormal: to even.
  EXPECT_EQ(row.codes, (std::vector<int>{0x7E, 0xFE, 0x38, 0x00, 0x58, 0x5A, 0x00, 0x02}));
}

TEST(Rtn, GroupsOfARowHaveTheirOwnScales) {
  std::vector<float> row(64, 7.5f);
  std::fill(row.begin() + 32, row.end(), -15.0f);
  const Int4Row out = int4_row(row, 32);
  EXPECT_EQ(bf16_to_float(out.scales[0]), 1.0f);
  EXPECT_EQ(bf16_to_float(out.scales[1]), 2.0f);
  EXPECT_EQ(static_cast<uint32_t>(out.packed[0]), 0xffffffffu);  // 7.5 -> 8 -> clips to 7
  EXPECT_EQ(static_cast<uint32_t>(out.packed[4]), 0x00000000u);  // -7.5 -> -8
}

TEST(Rtn, RoundingToBf16RefusesWhatIsNotFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  const float max = std::numeric_limits<float>::max();  // rounds up to infinity in bf16
  for (float bad : {std::nanf(""), -std::nanf(""), inf, -inf, max, -max}) {
    std::vector<float> row(33, 1.0f);
    row[32] = bad;
    EXPECT_FALSE(round_row_to_bf16(row.data(), 33)) << bad;
  }
  std::vector<float> row = {1.00390625f, 1.01171875f, -0.0f, 1e-40f};  // two ties, zero, denormal
  EXPECT_TRUE(round_row_to_bf16(row.data(), 4));
  EXPECT_EQ(row[0], 1.0f);
  EXPECT_EQ(row[1], 1.015625f);
  EXPECT_TRUE(std::signbit(row[2]));
  EXPECT_EQ(row[3], bf16_to_float(float_to_bf16(1e-40f)));
}

TEST(Rtn, EqualsTheLibraryBitForBit) {
  const std::string path = TANDEM_TEST_DIR "/golden/compress/rtn.json";
  const Json golden = parse_json(read_text_file(path, 1 << 20), path);
  const size_t num_rows = golden["rows"].size();
  ASSERT_GE(num_rows, 30u);
  for (size_t r = 0; r < num_rows; ++r) {
    std::vector<float> row;
    for (uint16_t bits : golden["rows"][r]) row.push_back(bf16_to_float(bits));
    const Int8Row int8 = int8_row(row);
    EXPECT_EQ(int8.codes, golden["int8_codes"][r].get<std::vector<int>>()) << "row " << r;
    EXPECT_EQ(int8.scale, golden["int8_scales"][r][0].get<uint16_t>()) << "row " << r;
    for (int64_t group : {32, 64}) {
      const Int4Row int4 = int4_row(row, group);
      const std::string prefix = "int4_g" + std::to_string(group);
      EXPECT_EQ(int4.packed, golden[prefix + "_packed"][r].get<std::vector<int32_t>>())
          << "row " << r;
      EXPECT_EQ(int4.scales, golden[prefix + "_scales"][r].get<std::vector<uint16_t>>())
          << "row " << r;
    }
    std::vector<float> finite = row;
    if (!round_row_to_bf16(finite.data(), static_cast<int64_t>(row.size()))) continue;  // refused
    const Fp8Row fp8 = fp8_row(row);
    EXPECT_EQ(fp8.codes, golden["fp8_codes"][r].get<std::vector<int>>()) << "row " << r;
    EXPECT_EQ(fp8.scale, golden["fp8_scales"][r][0].get<uint16_t>()) << "row " << r;
  }
}

// The largest magnitude has the code 127 or -127; half way between two codes the even one.
TEST(Rtn, LlmInt8) {
  const float row[] = {127.0f, -127.0f, 0.5f, 1.5f, -2.5f, 63.2f, 0.0f, -0.0f};
  EXPECT_EQ(llm_int8_magnitude(row, 8), 127.0f);
  std::byte codes[8];
  llm_int8_codes(row, 8, codes);
  const int8_t expected[] = {127, -127, 0, 2, -2, 63, 0, 0};
  for (int k = 0; k < 8; ++k) EXPECT_EQ(static_cast<int8_t>(codes[k]), expected[k]) << k;
  const float zeros[8] = {};
  EXPECT_EQ(llm_int8_magnitude(zeros, 8), 0.0f);
  llm_int8_codes(zeros, 8, codes);
  for (const std::byte code : codes) EXPECT_EQ(code, std::byte{0});
}

}  // namespace
}  // namespace tandem
