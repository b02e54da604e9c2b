// Places of 2:4 weights that are not two in ascending order are refused when a model is loaded.
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "formats/random_checkpoint.h"
#include "model/model.h"

namespace tandem {
namespace {

ModelConfig small_config() {
  ModelConfig config;
  config.name = "small";
  config.num_layers = 1;
  config.width = 64;
  config.num_heads = 1;
  config.num_kv_heads = 1;
  config.head_dim = 64;
  config.ffn_width = 128;
  config.vocab_size = 256;
  config.max_context = 64;
  return config;
}

TEST(Places, OutOfRangeAreRefused) {
  ThreadPool pool(1);
  for (const char* name : {"bf16-2:4", "int4-g32-2:4", "int8-2:4", "fp8-2:4"}) {
    // The second equals the first, or stands before it.
    for (const unsigned nibble : {0x0u, 0x5u, 0xFu, 0x1u, 0x3u}) {
      SCOPED_TRACE(std::string(name) + " nibble " + std::to_string(nibble));
      Checkpoint checkpoint = random_checkpoint(small_config(), encoding_of(name), kQ8_0, 3, pool);
      checkpoint.is_random = false;  // as if a file had them
      EXPECT_NO_THROW(Model(checkpoint, pool, "ref"));
      const Weight& weight = checkpoint.weight("model.layers.0.mlp.down_proj.weight");
      // Row 1's last byte, which has its last group in the upper half.
      auto* last = const_cast<std::byte*>(weight.data) + 2 * weight.encoding.row_bytes(weight.K) - 1;
      *last = (*last & std::byte{0x0F}) | std::byte(nibble << 4);
      try {
        const Model model(checkpoint, pool, "ref");
        ADD_FAILURE() << "loaded";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind, ErrorKind::bad_file);
        EXPECT_NE(std::string(error.what()).find("2:4 indices out of range: row 1 keeps"), std::string::npos)
            << error.what();
      }
    }
  }
}

}  // namespace
}  // namespace tandem
