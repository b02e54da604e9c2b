// What the table has for each generation of GPUs, which needs no GPU to be asked; and how a device
// is named that is capped to one.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

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
    if (older_cuda_ops().empty()) GTEST_SKIP() << "a build without older GPUs' kernels";
  }
};

TEST_F(CudaGenerations, MeetWeightsWithHoppersActivations) {
  std::map<std::string_view, int> rows, with_bf16;
  for (const LinearKernel& older : older_cuda_linear_kernels()) {
    EXPECT_EQ(older.act_type, find_linear("cuda", older.packing).act_type) << older.name;
    EXPECT_TRUE(std::string_view(older.name).ends_with(older.isa)) << older.name;
    EXPECT_FALSE(older.skips_zeros) << older.name;
    ++rows[older.isa];
    with_bf16[older.isa] += older.act_type == ActType::bf16;
  }
  EXPECT_EQ(rows["sm_80"], rows["sm_89"]);
  EXPECT_EQ(rows["sm_75"], rows["sm_80"] - with_bf16["sm_80"]);
  EXPECT_EQ(with_bf16["sm_75"], 0);
  for (const OpSet& older : older_cuda_ops()) {
    EXPECT_TRUE(std::ranges::equal(older.kv_types, find_ops("cuda").kv_types)) << older.isa;
  }
}

TEST_F(CudaGenerations, TuringSaysWhyItLacksBf16) {
  for (const Packing packing : {Packing::bf16, Packing::fp8_weight, Packing::nf4, Packing::fp4,
                                Packing::codebook, Packing::bf16_24}) {
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

// What the host reads a GPU runs too, but for these, which it refuses by name.
TEST(CudaLinears, CoverEveryEncodingOrRefuseIt) {
  if (cuda_ops() == nullptr) GTEST_SKIP() << "a build without CUDA";
  std::set<std::string> refused;
  for (const LinearKernel& host : ref_linear_kernels()) {
    const std::string name = Encoding{host.packing}.name();
    const std::string line =
        refusal(ErrorKind::no_device, [&] { find_linear("cuda", host.packing); });
    if (line.empty()) continue;
    EXPECT_NE(line.find("no kernel runs " + name + " weights on cuda, which runs "),
              std::string::npos)
        << line;
    refused.insert(name);
  }
  EXPECT_EQ(refused, (std::set<std::string>{"f32", "q2_k", "q3_k", "q5_0", "q5_1", "q5_k",
                                            "iq4_nl"}));
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
