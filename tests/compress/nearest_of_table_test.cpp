// nf4 and fp4 of hand-made rows and of rows that bitsandbytes encoded.
#include "compress/nearest_of_table.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "tensor/dtype.h"
#include "tensor/weight.h"

namespace tandem {
namespace {

struct Block {
  std::vector<uint8_t> codes;
  float absmax;
};

Block block_of(const std::vector<float>& row, const Encoding& encoding) {
  Block block{std::vector<uint8_t>(row.size() / 2), 0};
  const auto K = static_cast<int64_t>(row.size());
  table_codes(row.data(), K, encoding, lookup_values(encoding.packing), reinterpret_cast<std::byte*>(block.codes.data()));
  table_absmax(row.data(), K, encoding, reinterpret_cast<std::byte*>(&block.absmax));
  return block;
}

TEST(NearestOfTable, FindsTheTablesOwnNumbers) {
  for (const Encoding& encoding : {kNF4, kFP4}) {
    std::vector<float> row;
    for (int i = 0; i < 64; ++i) row.push_back(2 * lookup_values(encoding.packing)[i % 16]);
    const Block block = block_of(row, encoding);
    EXPECT_EQ(block.absmax, 2.0f);
    for (int i = 0; i < 32; ++i) {
      const int high = i % 8 * 2, low = high + 1;
      // fp4 has two zeros: the negative one comes out as the other.
      const bool is_zero = encoding.packing == Packing::fp4 && high == 8;
      EXPECT_EQ(block.codes[i], (is_zero ? 0 : high) << 4 | low) << encoding.name() << " " << i;
    }
  }
}

TEST(NearestOfTable, NoNumberIsNearerThanTheOneItTakes) {
  for (const Encoding& encoding : {kNF4, kFP4}) {
    std::vector<float> row;
    for (int i = 0; i < 64; ++i) row.push_back(std::sin(static_cast<float>(i * i)));
    const Block block = block_of(row, encoding);
    std::vector<float> decoded(64);
    decode_row({encoding, 1, 64, reinterpret_cast<const std::byte*>(block.codes.data()),
                reinterpret_cast<const std::byte*>(&block.absmax)},
               0, decoded.data());
    for (int i = 0; i < 64; ++i) {
      for (int code = 0; code < 16; ++code) {
        const float other = lookup_values(encoding.packing)[code] * block.absmax;
        ASSERT_LE(std::fabs(row[i] - decoded[i]), std::fabs(row[i] - other) + 1e-6f);
      }
    }
  }
}

TEST(NearestOfTable, EqualsTheLibraryBitForBit) {
  const std::string path = TANDEM_TEST_DIR "/golden/compress/nf4.json";
  const Json golden = parse_json(read_text_file(path, 1 << 20), path);
  const size_t num_rows = golden["rows"].size();
  ASSERT_GE(num_rows, 20u);
  for (size_t r = 0; r < num_rows; ++r) {
    std::vector<float> row;
    for (uint16_t bits : golden["rows"][r]) row.push_back(bf16_to_float(bits));
    for (const Encoding& encoding : {kNF4, kFP4}) {
      const Block block = block_of(row, encoding);
      EXPECT_EQ(block.codes, golden[encoding.name() + "_codes"][r].get<std::vector<uint8_t>>())
          << encoding.name() << " row " << r;
      EXPECT_EQ(std::bit_cast<uint32_t>(block.absmax),
                golden[encoding.name() + "_absmax"][r].get<uint32_t>())
          << encoding.name() << " row " << r;
    }
  }
}

}  // namespace
}  // namespace tandem
