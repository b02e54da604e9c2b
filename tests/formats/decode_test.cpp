// Golden bits: what a block of each encoding stands for, through the reader of the file.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "formats/gguf.h"
#include "formats/gguf_builder.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

// The decoded rows of a file's only tensor.
std::vector<float> decode(uint32_t type, int64_t K, const std::string& data) {
  GgufBuilder builder;
  builder.tensors.push_back({"x", {K}, type, data, {}, {}});
  const std::string bytes = builder.bytes();
  const GgufFile file = parse_gguf(std::as_bytes(std::span(bytes)), "x");
  Weight weight;
  weight.encoding = file.tensors[0].encoding;
  weight.N = 1;
  weight.K = K;
  weight.data = file.tensors[0].bytes.data();
  std::vector<float> out(static_cast<size_t>(K));
  decode_row(weight, 0, out.data());
  return out;
}

TEST(Decode, F16) {
  const std::pair<uint16_t, float> cases[] = {
      {0x0000, 0.0f},     {0x3C00, 1.0f},     {0xC000, -2.0f},    {0x3555, 0.333251953125f},
      {0x7BFF, 65504.0f}, {0x0400, 0x1p-14f}, {0x0001, 0x1p-24f}, {0x83FF, -0x1.ff8p-15f},
      {0x7C00, INFINITY}, {0xFC00, -INFINITY}};
  for (const auto& [bits, value] : cases) EXPECT_EQ(decode(1, 1, raw(bits))[0], value) << bits;
  EXPECT_TRUE(std::isnan(decode(1, 1, raw<uint16_t>(0x7E00))[0]));
  EXPECT_TRUE(std::signbit(decode(1, 1, raw<uint16_t>(0x8000))[0]));
}

TEST(Decode, F16AgreesWithTheCompiler) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = std::bit_cast<_Float16>(static_cast<uint16_t>(bits));
    const float expected = static_cast<float>(half),
                actual = f16_to_float(static_cast<uint16_t>(bits));
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(actual)) << bits;
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(actual), std::bit_cast<uint32_t>(expected)) << bits;
      EXPECT_EQ(float_to_f16(expected), bits);
    }
  }
}

TEST(Decode, BF16) {
  const std::pair<uint16_t, float> cases[] = {{0x3F80, 1.0f},      {0xC049, -3.140625f},
                                              {0x0001, 0x1p-133f}, {0x7F7F, 0x1.fep127f},
                                              {0x7F80, INFINITY},  {0x8000, -0.0f}};
  for (const auto& [bits, value] : cases) EXPECT_EQ(decode(30, 1, raw(bits))[0], value) << bits;
}

TEST(Decode, Q8_0) {
  std::string block = raw<uint16_t>(0x3800);  // scale 0.5
  for (int i = 0; i < 32; ++i) block += static_cast<char>(i * 8 - 128);
  const auto out = decode(8, 32, block);
  for (int i = 0; i < 32; ++i)
    EXPECT_EQ(out[static_cast<size_t>(i)], 0.5f * static_cast<float>(i * 8 - 128));
}

TEST(Decode, Q4_1) {
  std::string block = raw<uint16_t>(0x3400) + raw<uint16_t>(0xBC00);  // scale 0.25, min -1
  for (int i = 0; i < 16; ++i) block += static_cast<char>(i | (15 - i) << 4);
  const auto out = decode(3, 64, block + block);
  for (size_t i = 0; i < 64; ++i) {
    const size_t j = i % 32;
    const size_t code = j < 16 ? j : 15 - (j - 16);  // low nibbles first, then the high ones
    EXPECT_EQ(out[i], 0.25f * static_cast<float>(code) - 1.0f) << i;
  }
}

TEST(Decode, InterleavedRowsComeOutHalfSplit) {
  const std::vector<float> rows = {0,  1,  2,  3,
                                   10, 11, 12, 13};  // two heads of four rows of one element
  Weight weight;
  weight.encoding = kF32;
  weight.N = 8;
  weight.K = 1;
  weight.data = std::as_bytes(std::span(rows)).data();
  weight.interleaved_head = 4;
  const float expected[] = {0, 2, 1, 3, 10, 12, 11, 13};
  for (int64_t n = 0; n < 8; ++n) {
    float value = -1;
    decode_row(weight, n, &value);
    EXPECT_EQ(value, expected[n]) << n;
  }
}

}  // namespace
}  // namespace tandem
