// 2:4 rows: where the bits lie, what pruning keeps, and what is no places.
#include "tensor/sparse.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/finite.h"

namespace tandem {
namespace {

Weight view_of(const Encoding& encoding, int64_t N, int64_t K, const std::vector<std::byte>& data) {
  Weight weight;
  weight.encoding = encoding;
  weight.N = N;
  weight.K = K;
  weight.data = data.data();
  return weight;
}

TEST(Sparse, PrunesToTheTwoLargestAndKeepsThemInPlace) {
  const std::vector<float> row = {1, -3, 2, 0.5f, /**/ 0, 0, 0, -4, /**/ 5, 5, 5, 5, /**/ -1, 0, 0, -2};
  const std::vector<float> pruned = {0, -3, 2, 0, 0, 0, 0, -4, 0, 0, 5, 5, -1, 0, 0, -2};
  const uint8_t places[] = {0x9 | 0xE << 4, 0xE | 0xC << 4};
  for (const Encoding& encoding : {kBF16_24, kF16_24}) {
    std::vector<std::byte> data(encoding.row_bytes(16));
    ASSERT_EQ(data.size(), 18u);  // eight values and two bytes: 9 bits an element
    prune_row(encoding, row, data.data());
    const Weight weight = view_of(encoding, 1, 16, data);
    std::vector<float> out(16);
    decode_row(weight, 0, out.data());
    EXPECT_EQ(out, pruned) << encoding.name();
    EXPECT_EQ(row_places(weight, 0)[0], places[0]);
    EXPECT_EQ(row_places(weight, 0)[1], places[1]);
    EXPECT_EQ(first_bad_places(weight, 0), -1);
    EXPECT_TRUE(row_is_finite(weight, 0));
  }
}

TEST(Sparse, FindsTheFirstGroupWhoseNibbleIsNoPlaces) {
  int good = 0;
  for (int nibble = 0; nibble < 16; ++nibble) good += are_places(nibble) ? 1 : 0;
  EXPECT_EQ(good, 6);
  for (const uint8_t two : kPlaces24) EXPECT_TRUE(are_places(two));

  std::vector<std::byte> data(2 * kBF16_24.row_bytes(16), std::byte{0x44});
  data[18 + 16] = std::byte{0x54};  // row 1, group 1: the second place twice
  const Weight weight = view_of(kBF16_24, 2, 16, data);
  EXPECT_EQ(first_bad_places(weight, 0), -1);
  EXPECT_EQ(first_bad_places(weight, 1), 1);
}

TEST(Sparse, Int4CodesStandInTheirPlacesUnderTheScaleOfTheirGroup) {
  const Encoding encoding = int4_group_24(32, ScaleType::f32);
  std::vector<std::byte> data(encoding.row_bytes(64), std::byte{0x88});  // codes 8: zero
  ASSERT_EQ(data.size(), 16u + 8u);
  for (size_t i = 16; i < data.size(); ++i) data[i] = std::byte{0xE4};  // places 01, then 23
  data[0] = std::byte{0xF0};   // group 0: -8 at 0, 7 at 1
  data[15] = std::byte{0x79};  // group 15: 1 at 62, -1 at 63
  const float scales[] = {0.5f, 3.0f};
  Weight weight = view_of(encoding, 1, 64, data);
  weight.scales = reinterpret_cast<const std::byte*>(scales);
  EXPECT_EQ(weight.total_bytes(), 24u + 8u);
  std::vector<float> out(64), expected(64);
  decode_row(weight, 0, out.data());
  expected[0] = -4, expected[1] = 3.5f, expected[62] = 3, expected[63] = -3;
  EXPECT_EQ(out, expected);
}

TEST(Sparse, Int8CodesStandInTheirPlacesUnderTheScaleOfTheirRow) {
  const Encoding encoding = int8_channel_24(ScaleType::f32);
  std::vector<std::byte> data(encoding.row_bytes(16));
  ASSERT_EQ(data.size(), 8u + 2u);
  data[0] = std::byte{0x80}, data[1] = std::byte{127};  // group 0: -128 at 0, 127 at 3
  data[7] = std::byte{3};                               // group 3: 0 at 1, 3 at 2
  data[8] = std::byte{0x4C}, data[9] = std::byte{0x94};
  const float scale = 0.5f;
  Weight weight = view_of(encoding, 1, 16, data);
  weight.scales = reinterpret_cast<const std::byte*>(&scale);
  EXPECT_EQ(weight.total_bytes(), 10u + 4u);
  EXPECT_EQ(first_bad_places(weight, 0), -1);
  std::vector<float> out(16), expected(16);
  decode_row(weight, 0, out.data());
  expected[0] = -64, expected[3] = 63.5f, expected[14] = 1.5f;
  EXPECT_EQ(out, expected);
}

TEST(Sparse, E4M3CodesStandInTheirPlacesUnderTheScaleOfTheirRow) {
  const Encoding encoding = fp8_channel_24(ScaleType::f32);
  std::vector<std::byte> data(encoding.row_bytes(16));
  ASSERT_EQ(data.size(), 8u + 2u);
  data[0] = std::byte{0xFE}, data[1] = std::byte{0x38};  // group 0: -448 at 0, 1 at 3
  data[7] = std::byte{0x01};                             // group 3: 0 at 1, 2^-9 at 2
  data[8] = std::byte{0x4C}, data[9] = std::byte{0x94};
  const float scale = 0.5f;
  Weight weight = view_of(encoding, 1, 16, data);
  weight.scales = reinterpret_cast<const std::byte*>(&scale);
  EXPECT_EQ(first_bad_places(weight, 0), -1);
  EXPECT_TRUE(row_is_finite(weight, 0));
  std::vector<float> out(16), expected(16);
  decode_row(weight, 0, out.data());
  expected[0] = -224, expected[3] = 0.5f, expected[14] = 0.0009765625f;
  EXPECT_EQ(out, expected);
  data[3] = std::byte{0x7F};  // no number; the places behind the values are not looked at
  EXPECT_FALSE(row_is_finite(weight, 0));
}

TEST(Sparse, AValueThatIsNotFiniteIsSeen) {
  const std::vector<float> row(8, 1.0f);
  std::vector<std::byte> data(kF16_24.row_bytes(8));
  prune_row(kF16_24, row, data.data());
  const uint16_t nan = 0x7E00;
  std::memcpy(data.data() + 4, &nan, 2);
  EXPECT_FALSE(row_is_finite(view_of(kF16_24, 1, 8, data), 0));
}

}  // namespace
}  // namespace tandem
