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

}  // namespace
}  // namespace tandem
