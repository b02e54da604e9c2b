#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tandem {
namespace {

TEST(Dtype, EveryF16ComesBack) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = f16_to_float(static_cast<uint16_t>(h));
    const bool nan = (h & 0x7FFF) > 0x7C00;
    ASSERT_EQ(std::isnan(f), nan);
    if (nan) continue;
    ASSERT_EQ(float_to_f16(f), h);
  }
}

// The compiler's own half type is the oracle for rounding.
TEST(Dtype, F16RoundsAsTheCompilerDoes) {
  for (uint64_t i = 0; i < 4000000; ++i) {
    const uint32_t bits = static_cast<uint32_t>(i * 1073 + 7);
    const float f = std::bit_cast<float>(bits);
    if (std::isnan(f)) continue;
    const _Float16 expected = static_cast<_Float16>(f);
    ASSERT_EQ(float_to_f16(f), std::bit_cast<uint16_t>(expected)) << f;
    ASSERT_EQ(f16_to_float(std::bit_cast<uint16_t>(expected)), static_cast<float>(expected));
  }
}

TEST(Dtype, Bf16RoundsToNearestEven) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = bf16_to_float(static_cast<uint16_t>(h));
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(f))));
    } else {
      ASSERT_EQ(float_to_bf16(f), h);
    }
  }
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3F808000u)), 0x3F80);  // a tie goes to even
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3F818000u)), 0x3F82);
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3F808001u)), 0x3F81);
  EXPECT_EQ(float_to_bf16(3.4e38f), 0x7F80);
}

TEST(Dtype, EveryE4M3ComesBack) {
  for (uint32_t code = 0; code < 0x100; ++code) {
    const float f = e4m3_to_float(static_cast<uint8_t>(code));
    ASSERT_EQ(std::isnan(f), (code & 0x7F) == 0x7F);
    ASSERT_EQ(float_to_e4m3(f), code);
    if (std::isnan(f)) continue;
    // The definition: (-1)^s 2^(e - 7) (1 + m / 8), or 2^-6 m / 8 where e is 0.
    const int e = static_cast<int>(code >> 3 & 15), m = static_cast<int>(code & 7);
    const double magnitude = e == 0 ? std::ldexp(m, -9) : std::ldexp(8 + m, e - 10);
    ASSERT_EQ(f, code < 0x80 ? magnitude : -magnitude);
  }
}

TEST(Dtype, E4M3RoundsToTheNearestAndSaturates) {
  EXPECT_EQ(float_to_e4m3(448.0f), 0x7E);
  EXPECT_EQ(float_to_e4m3(449.0f), 0x7E);
  EXPECT_EQ(float_to_e4m3(-1e30f), 0xFE);
  EXPECT_EQ(float_to_e4m3(INFINITY), 0x7E);
  EXPECT_EQ(float_to_e4m3(-0.0f), 0x80);
  EXPECT_EQ(float_to_e4m3(0x1p-9f), 0x01);
  EXPECT_EQ(float_to_e4m3(0x1p-10f), 0x00);  // ties go to even
  EXPECT_EQ(float_to_e4m3(0x1.000002p-10f), 0x01);
  for (uint32_t low = 0; low < 0x7E; ++low) {
    const float a = e4m3_to_float(static_cast<uint8_t>(low)),
                b = e4m3_to_float(static_cast<uint8_t>(low + 1)), middle = (a + b) / 2;
    ASSERT_EQ(float_to_e4m3(middle), low % 2 == 0 ? low : low + 1);
    ASSERT_EQ(float_to_e4m3(std::nextafter(middle, 0.0f)), low);
    ASSERT_EQ(float_to_e4m3(std::nextafter(middle, 1e9f)), low + 1);
  }
}

}  // namespace
}  // namespace tandem
