// Round to nearest with zero points against rows that the compressed-tensors library encoded.
#include "compress/rtn_grid.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/json.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

TEST(RtnGrid, EqualsTheLibraryBitForBit) {
  const std::string path = TANDEM_TEST_DIR "/golden/compress/rtn_grid.json";
  const Json golden = parse_json(read_text_file(path, 1 << 20), path);
  ThreadPool pool(1);
  int cases = 0;
  for (const auto& [name, entry] : golden.items()) {
    if (name.ends_with("_rows")) continue;
    const IntegerGrid grid{entry["bits"], entry["group"], entry["symmetric"],
                           entry["type"] == "bf16" ? ScaleType::bf16 : ScaleType::f16};
    const Json& rows = golden[entry["type"].get<std::string>() + "_rows"];
    Matrix w(static_cast<int64_t>(rows.size()), static_cast<int64_t>(rows[0].size()));
    for (int64_t n = 0; n < w.N; ++n) {
      for (int64_t k = 0; k < w.K; ++k) {
        const uint16_t bits = rows[static_cast<size_t>(n)][static_cast<size_t>(k)];
        w.row(n)[k] = grid.scale_type == ScaleType::bf16 ? bf16_to_float(bits) : f16_to_float(bits);
      }
    }
    const GridMatrix m = round_to_grid(w, grid, pool);
    EXPECT_EQ(m.codes, entry["codes"].get<std::vector<uint8_t>>()) << name;
    EXPECT_EQ(m.zeros, entry["zeros"].get<std::vector<uint8_t>>()) << name;
    std::vector<uint16_t> scales;
    for (const float scale : m.scales) {
      scales.push_back(grid.scale_type == ScaleType::bf16 ? float_to_bf16(scale)
                                                          : float_to_f16(scale));
    }
    EXPECT_EQ(scales, entry["scales"].get<std::vector<uint16_t>>()) << name;
    ++cases;
  }
  EXPECT_GE(cases, 8);
}

}  // namespace
}  // namespace tandem
