#include "model/footprint.h"

#include <gtest/gtest.h>

#include "kernels/random_weight.h"
#include "kernels/table.h"

namespace tandem {
namespace {

// What `inspect` says from the header is what the kernels then take.
TEST(Footprint, ResidentBytesAreThoseOfThePackedWeights) {
  const Encoding encodings[] = {kF32,
                                kBF16,
                                kQ4_0,
                                kQ4_1,
                                kQ5_0,
                                kQ5_1,
                                kQ8_0,
                                kQ2_K,
                                kQ3_K,
                                kQ4_K,
                                kQ5_K,
                                kQ6_K,
                                kIQ4_NL,
                                int4_group(64, ScaleType::bf16),
                                int8_channel(ScaleType::bf16)};
  ThreadPool pool(1);
  for (const std::string_view isa : runnable_isas()) {
    if (isa == "ref") continue;  // reads the file in place
    for (const Encoding& encoding : encodings) {
      const RandomWeight random(encoding, 64, 512, 1);
      Checkpoint checkpoint;
      checkpoint.tensors.push_back({"model.layers.0.mlp.up_proj.weight", random.weight});
      Arena arena;
      const PackedWeight packed =
          find_linear(isa, encoding.packing).prepack(Context{&pool}, {random.weight}, arena);
      const auto expected = static_cast<double>(packed.data_bytes);
      EXPECT_NEAR(static_cast<double>(footprint(checkpoint).resident_bytes), expected,
                  0.01 * expected)
          << isa << " " << encoding.name();
    }
  }
}

}  // namespace
}  // namespace tandem
