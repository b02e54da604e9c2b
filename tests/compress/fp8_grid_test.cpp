// FP8 with a scale for a matrix or for blocks: blocks cut off, blocks of zeros, both kinds of scales.
#include "compress/fp8_grid.h"

#include <gtest/gtest.h>

#include "tensor/dtype.h"

namespace tandem {
namespace {

TEST(Fp8Grid, BlocksAreCutOffAtBothEnds) {
  Fp8Grid grid(130, 200, 128, 128, ScaleType::f32);
  EXPECT_EQ(grid.row_blocks(), 2);
  EXPECT_EQ(grid.column_blocks(), 2);
  std::vector<float> row(200, 0.0f);
  for (int64_t n = 0; n < 130; ++n) {
    row[3] = n == 5 ? -7.0f : 0.5f;
    row[150] = n == 129 ? 448.0f : 0.0f;
    grid.add_row(n, row.data());
  }
  EXPECT_EQ(grid.magnitudes, (std::vector<float>{7, 0, 0.5f, 448}));
  float scales[2];
  grid.store_scales(0, reinterpret_cast<std::byte*>(scales));
  EXPECT_FLOAT_EQ(scales[0], 7.0f / 448);
  EXPECT_EQ(scales[1], 1.0f) << "a block of zeros";
  std::vector<std::byte> codes(200);
  row[3] = -7;
  grid.store_codes(5, row.data(), codes.data());
  EXPECT_EQ(codes[3], std::byte{0xFE});
  EXPECT_EQ(codes[150], std::byte{0x7E}) << "saturates";
}

TEST(Fp8Grid, OneScaleForAMatrixIsRoundedBeforeItDivides) {
  Fp8Grid grid(2, 3, 2, 3, ScaleType::bf16);
  const float rows[2][3] = {{1, -0.0f, 0.25f}, {-3, 2, 0}};
  for (int64_t n = 0; n < 2; ++n) grid.add_row(n, rows[n]);
  uint16_t scale = 0;
  grid.store_scales(0, reinterpret_cast<std::byte*>(&scale));
  EXPECT_EQ(scale, float_to_bf16(3.0f / 448));
  std::byte codes[3];
  grid.store_codes(0, rows[0], codes);
  EXPECT_EQ(codes[1], std::byte{0}) << "a zero loses its sign";
  EXPECT_EQ(e4m3_to_float(static_cast<uint8_t>(codes[0])), 144.0f);
}

}  // namespace
}  // namespace tandem
