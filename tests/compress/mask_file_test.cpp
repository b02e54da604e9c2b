// Masks of an .npz, the highest bit first, and those that are none.
#include "compress/mask_file.h"

#include <gtest/gtest.h>

#include "base/error_message.h"

namespace tandem {
namespace {

const std::string kModule = "model.layers.0.self_attn.q_proj";

NpzFile golden() {
  return NpzFile(std::string(TANDEM_TEST_DIR) + "/golden/masks/deflated.npz");
}

TEST(MaskFile, ReadsTheHighestBitFirst) {
  EXPECT_EQ(read_mask(golden(), kModule, 3, 8),
            (std::vector<uint8_t>{1, 1, 0, 0, 1, 0, 1, 0,    // 0xCA
                                  1, 0, 0, 1, 0, 1, 1, 0,    // 0x96
                                  0, 1, 0, 1, 0, 0, 1, 1}));  // 0x53
}

TEST(MaskFile, RefusesAnotherModel) {
  EXPECT_TRUE(message_of(ErrorKind::bad_file, [] { read_mask(golden(), kModule, 4, 8); })
                  .ends_with("expected '|u1' '(4,)'"));
  EXPECT_TRUE(message_of(ErrorKind::bad_file, [] { read_mask(golden(), "model.x", 3, 8); })
                  .ends_with("array 'model.x.weight.mask': missing"));
}

}  // namespace
}  // namespace tandem
