// What the table has for each generation of GPUs, which needs no GPU to be asked; and how a device
// is named that is capped to one.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/device.h"
#include "kernels/rows.h"
#include "kernels/table.h"

namespace tandem {
namespace {

// Empty where nothing is refused.
std::string refusal(ErrorKind kind, auto act) {
  try {
    act();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, kind) << error.what();
    return error.what();
  }
  return "";
}

class CudaGenerations : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_op_sets().size() < 2) GTEST_SKIP() << "a build without older GPUs' kernels";
  }
};

TEST_F(CudaGenerations, RunWhatHopperRuns) {
  for (const LinearKernel& row : cuda_linear_kernels()) {
    if (row.isa != std::string_view("cuda")) continue;
    for (const char* isa : {"sm_75", "sm_80", "sm_89"}) {
      if (isa == std::string_view("sm_75") && row.act_type == ActType::bf16) continue;
      const LinearKernel& older = find_linear(isa, row.packing);
      EXPECT_EQ(older.act_type, row.act_type) << older.name;
      EXPECT_TRUE(std::string_view(older.name).ends_with(isa)) << older.name;
      EXPECT_FALSE(older.skips_zeros) << older.name;
    }
  }
  for (const char* isa : {"sm_75", "sm_80", "sm_89"}) {
    EXPECT_TRUE(std::ranges::equal(find_ops(isa).kv_types, find_ops("cuda").kv_types)) << isa;
  }
}

TEST_F(CudaGenerations, TuringSaysWhyItLacksBf16) {
  for (const Packing packing :
       {Packing::bf16, Packing::fp8_weight, Packing::nf4, Packing::fp4, Packing::bf16_24}) {
    const std::string line = refusal(ErrorKind::no_device, [&] { find_linear("sm_75", packing); });
    EXPECT_NE(line.find(Encoding{packing}.name() + " weights on sm_75 (its tensor cores have no "
                                                   "bf16), which runs f16, "),
              std::string::npos)
        << line;
  }
  // Missing everywhere, so no fault of the generation's.
  const std::string line =
      refusal(ErrorKind::no_device, [] { find_linear("sm_75", Packing::q2_k); });
  EXPECT_NE(line.find("q2_k weights on sm_75, which runs f16, "), std::string::npos) << line;
}

TEST(DeviceNames, HaveACapBehindThem) {
  for (const char* name : {"cuda", "cuda:0", "cuda@sm_75", "cuda:12@sm_89"})
    EXPECT_TRUE(names_device(name)) << name;
  for (const char* name : {"", "cud", "cuda0", "sm_75", "avx2@sm_75"})
    EXPECT_FALSE(names_device(name)) << name;
  for (const char* name : {"cuda@sm_60", "cuda@", "cuda:0@sm_90a", "cuda@sm_75@sm_75"}) {
    const std::string line = refusal(ErrorKind::usage, [&] { describe_device(name); });
    EXPECT_NE(line.find("expected sm_75, sm_80 or sm_89"), std::string::npos) << line;
  }
  EXPECT_NE(refusal(ErrorKind::usage, [] { describe_device("cuda:x@sm_75"); })
                .find("expected cuda or cuda:N"),
            std::string::npos);
}

}  // namespace
}  // namespace tandem
