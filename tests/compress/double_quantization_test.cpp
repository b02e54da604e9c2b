// Double quantization against what bitsandbytes made of the same numbers.
#include "compress/double_quantization.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "base/file.h"
#include "base/json.h"

namespace tandem {
namespace {

std::vector<float> floats_of(const Json& bits) {
  std::vector<float> values;
  for (const uint32_t word : bits.get<std::vector<uint32_t>>()) values.push_back(std::bit_cast<float>(word));
  return values;
}

Json golden() {
  const std::string path = TANDEM_TEST_DIR "/golden/compress/double_quantization.json";
  return parse_json(read_text_file(path, 1 << 20), path);
}

TEST(DoubleQuantization, HasTheLibrarysMap) {
  const auto map = floats_of(golden()["map"]);
  EXPECT_TRUE(std::ranges::equal(map, dynamic_map()));
  EXPECT_EQ(dynamic_map()[0], -0.99296875f);
  EXPECT_EQ(dynamic_map()[127], 0.0f);
}

TEST(DoubleQuantization, EqualsTheLibraryBitForBit) {
  const Json all = golden();
  ASSERT_GE(all["cases"].size(), 6u);
  for (const Json& one : all["cases"]) {
    const auto absmax = floats_of(one["absmax"]);
    const float offset = absmax_offset(absmax);
    EXPECT_EQ(std::bit_cast<uint32_t>(offset), one["offset"].get<uint32_t>()) << absmax.size();
    const NestedAbsmax nested = quantize_absmax(absmax, offset);
    EXPECT_EQ(nested.codes, one["codes"].get<std::vector<uint8_t>>()) << absmax.size();
    EXPECT_EQ(nested.absmax, floats_of(one["nested_absmax"])) << absmax.size();
  }
}

TEST(DoubleQuantization, EqualBlocksHaveNoSpread) {
  const std::vector<float> absmax(300, 0.5f);
  const NestedAbsmax nested = quantize_absmax(absmax, 0.5f);
  EXPECT_EQ(nested.absmax, (std::vector<float>{0, 0}));
  EXPECT_EQ(nested.codes, std::vector<uint8_t>(300, 0));
}

}  // namespace
}  // namespace tandem
