// A GPU's limits are kept as they were measured; without them a known limit is called what it is.
#include "study/device_sheet.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace tandem {
namespace {

MeasuredLimits example() {
  MeasuredLimits measured{{}, "cuBLASLt 13.0.2", "2026-01-02T03:04:05Z"};
  measured.limits = {8589934592, 4.5e12, 4.25e12, 1.1e-6, {{"bf16", 8192, 7.9e14}}};
  return measured;
}

TEST(DeviceSheet, LimitsComeBackAsTheyWere) {
  const MeasuredLimits back = limits_from_json(parse_json(dump_json(to_json(example())), "test"));
  EXPECT_EQ(back.measured_at, "2026-01-02T03:04:05Z");
  EXPECT_EQ(back.gemm_library, "cuBLASLt 13.0.2");
  EXPECT_EQ(back.limits.stream_bytes, 8589934592u);
  EXPECT_EQ(back.limits.read_bytes_per_second, 4.5e12);
  EXPECT_EQ(back.limits.launch_seconds, 1.1e-6);
  ASSERT_EQ(back.limits.gemms.size(), 1u);
  EXPECT_EQ(back.limits.gemms[0].type, "bf16");
  EXPECT_EQ(back.limits.gemms[0].operations_per_second, 7.9e14);
}

TEST(DeviceSheet, DamagedLimitsAreRefused) {
  Json json = to_json(example());
  json["read_bytes_per_second"] = 0;
  EXPECT_THROW(limits_from_json(json), Error);
  json = to_json(example());
  json.erase("gemms");
  EXPECT_THROW(limits_from_json(json), Error);
}

TEST(DeviceSheet, TheReadLimitSaysWhereItIsFrom) {
  DeviceSheet sheet;
  sheet.facts.model = "NVIDIA H200";
  EXPECT_EQ(read_limit_of(sheet).bytes_per_second, 4.54e12);
  EXPECT_NE(read_limit_of(sheet).source.find("of another NVIDIA H200"), std::string::npos);
  sheet.facts.model = "NVIDIA H100";
  EXPECT_FALSE(read_limit_of(sheet).bytes_per_second);
  EXPECT_NE(read_limit_of(sheet).source.find("not measured"), std::string::npos);
  sheet.measured = example();
  EXPECT_EQ(read_limit_of(sheet).bytes_per_second, 4.5e12);
  EXPECT_EQ(read_limit_of(sheet).source, "measured on this GPU, 2026-01-02T03:04:05Z");
}

}  // namespace
}  // namespace tandem
