// NVML by way of a library made for this test: energies add up, what spoils a window is found, what
// is not there is named.
#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include "study/meters/energy_point.h"
#include "study/meters/nvml_meter.h"

namespace tandem {
namespace {

constexpr const char* kAddress = "0000:41:00.0";

class NvmlTest : public testing::Test {
 protected:
  void TearDown() override { unsetenv("FAKE_NVML"); }

  static void fake(const char* settings) { setenv("FAKE_NVML", settings, 1); }
  static std::string refusal(const char* library, const char* address = kAddress) {
    std::string reason;
    EXPECT_EQ(open_nvml_meter(address, reason, library), nullptr);
    return reason;
  }
  static EnergyReading window(double seconds = 0.45) {
    std::string reason;
    const auto meter = open_nvml_meter(kAddress, reason, FAKE_NVML_PATH);
    EXPECT_NE(meter, nullptr) << reason;
    return meter == nullptr ? EnergyReading{} : measure_idle(*meter, seconds);
  }
};

TEST_F(NvmlTest, CounterAndSamplesAgree) {
  fake("watts=400");
  const EnergyReading reading = window();
  ASSERT_TRUE(reading.joules) << reading.reason;
  EXPECT_NEAR(*reading.watts(), 400, 4);
  ASSERT_TRUE(reading.sampled_joules);
  EXPECT_NEAR(*reading.sampled_joules, *reading.joules, 0.02 * *reading.joules);
  EXPECT_GE(reading.num_samples, 4);
  EXPECT_EQ(reading.marks, std::vector<std::string>{});
  ASSERT_TRUE(reading.gpu);
  EXPECT_EQ(reading.gpu->sm_mhz_min, 1980);
  EXPECT_EQ(reading.gpu->memory_mhz_mean, 3201);
  EXPECT_EQ(reading.gpu->celsius_most, 41);
  EXPECT_EQ(reading.gpu->busy_percent_mean, 97);
  EXPECT_EQ(reading.gpu->power_limit_watts, 700);
}

TEST_F(NvmlTest, ADisagreementAboveFivePercentIsMarked) {
  fake("watts=400;counter_factor=1.04");
  EXPECT_TRUE(window().marks.empty());
  fake("watts=400;counter_factor=1.10");
  const EnergyReading reading = window();
  EXPECT_TRUE(reading.joules);
  ASSERT_EQ(reading.marks.size(), 1u);
  EXPECT_NE(reading.marks[0].find("power samples give -9"), std::string::npos) << reading.marks[0];
}

TEST_F(NvmlTest, HeatAndHardwareSpoilAWindowAPowerCapMarksIt) {
  for (const char* settings : {"slowdowns=8", "slowdowns=32", "slowdowns=64", "slowdowns=128"}) {
    fake(settings);
    const EnergyReading reading = window(0.25);
    EXPECT_FALSE(reading.joules) << settings;
    EXPECT_NE(reading.reason.find("the GPU slowed down: "), std::string::npos) << reading.reason;
  }
  fake("slowdowns=5");  // idle and capped by software
  const EnergyReading capped = window();
  EXPECT_TRUE(capped.joules) << capped.reason;
  EXPECT_EQ(capped.marks, std::vector<std::string>{"power-capped at 700 W"});
  EXPECT_EQ(capped.gpu->slowdowns, std::vector<std::string>{"software power cap"});
}

TEST_F(NvmlTest, ASampleGivenTwiceIsTakenOnce) {
  fake("stuck_time=1700000000000000");
  const EnergyReading reading = window();
  EXPECT_EQ(reading.num_samples, 1);
  ASSERT_EQ(reading.marks.size(), 1u);
  EXPECT_NE(reading.marks[0].find("no power samples"), std::string::npos);
}

TEST_F(NvmlTest, ACounterThatStandsStillIsNotZeroEnergy) {
  fake("counter_factor=0");
  const EnergyReading reading = window(0.25);
  EXPECT_FALSE(reading.joules);
  EXPECT_NE(reading.reason.find("stood still"), std::string::npos) << reading.reason;
}

TEST_F(NvmlTest, ASharedGpuHasNoEnergyOfItsOwn) {
  fake("processes=2");
  const EnergyReading reading = window(0.25);
  EXPECT_FALSE(reading.joules);
  EXPECT_NE(reading.reason.find("2 processes share the GPU"), std::string::npos) << reading.reason;
}

TEST_F(NvmlTest, WhatIsNotThereIsNamed) {
  EXPECT_EQ(refusal("libnot-there.so.1"),
            "NVML: libnot-there.so.1 cannot be loaded; it comes with NVIDIA's driver");
  EXPECT_NE(refusal(FAKE_NVML_NO_LOOKUP_PATH).find("has no nvmlDeviceGetHandleByPciBusId_v2"),
            std::string::npos);
  EXPECT_NE(refusal(FAKE_NVML_NO_COUNTER_PATH).find("has no nvmlDeviceGetTotalEnergyConsumption"),
            std::string::npos);
  EXPECT_EQ(refusal(FAKE_NVML_PATH, "0000:99:00.0"), "NVML: the GPU at 0000:99:00.0: Not Found");
  fake("init_status=9");
  EXPECT_EQ(refusal(FAKE_NVML_PATH), "NVML: nvmlInit_v2: Driver Not Loaded");
  fake("energy_status=4");
  EXPECT_EQ(refusal(FAKE_NVML_PATH),
            "NVML: nvmlDeviceGetTotalEnergyConsumption: Insufficient Permissions");
  fake("energy_status=3");
  EXPECT_EQ(refusal(FAKE_NVML_PATH), "NVML: nvmlDeviceGetTotalEnergyConsumption: Not Supported");
  fake("mig=1");
  EXPECT_NE(refusal(FAKE_NVML_PATH).find("in slices (MIG)"), std::string::npos);
}

// What a GPU does not tell is absent, not zero; the energy is there all the same.
TEST_F(NvmlTest, AbsentFactsStayAbsent) {
  fake("power_status=3;busy_status=3");
  const EnergyReading reading = window(0.25);
  EXPECT_TRUE(reading.joules) << reading.reason;
  EXPECT_FALSE(reading.sampled_joules);
  EXPECT_FALSE(reading.gpu->busy_percent_mean);
}

TEST_F(NvmlTest, IdlePowerIsTakenOffTheDynamicEnergy) {
  fake("watts=100");
  std::string reason;
  const auto meter = open_nvml_meter(kAddress, reason, FAKE_NVML_PATH);
  ASSERT_NE(meter, nullptr) << reason;
  const EnergyPoint point = measure_energy(*meter, {0.6, 0.25}, [&] {
    // The fake's counter is watts times the time since the system started, so work that draws more
    // is work whose counter is read in larger units.
    const EnergyReading reading = measure_idle(*meter, 0.35);
    WorkWindow window{reading, 35, reading.seconds};
    window.reading.joules = 4 * *reading.joules;
    return window;
  });
  ASSERT_TRUE(point.work.joules) << point.work.reason;
  EXPECT_EQ(point.tokens, 70);  // two windows
  EXPECT_NEAR(*point.idle_watts(), 100, 2);
  EXPECT_NEAR(*point.joules_per_token(), 4.0, 0.1);
  EXPECT_NEAR(*point.dynamic_joules_per_token(), 3.0, 0.1);
  EXPECT_NEAR(*point.tokens_per_joule(), 0.25, 0.01);
  const Json json = to_json(point);
  EXPECT_EQ(json["valid"], true);
  EXPECT_EQ(json["gpu"]["celsius_most"], 41);
  EXPECT_NEAR(json["idle_before"]["watts"].get<double>(), 100, 2);
}

TEST_F(NvmlTest, AShortWindowIsNotBelieved) {
  fake("watts=100");
  std::string reason;
  const auto meter = open_nvml_meter(kAddress, reason, FAKE_NVML_PATH);
  const EnergyPoint point = measure_energy(*meter, {30, 0}, [&] {
    return WorkWindow{measure_idle(*meter, 0.01), 1, 0.01};
  });
  EXPECT_FALSE(point.joules_per_token());
  EXPECT_NE(point.work.reason.find("in 16 windows, 30 s needed"), std::string::npos)
      << point.work.reason;
}

TEST(JoinedReadings, AddEnergiesAndWeighMeansByTime) {
  EnergyReading a, b;
  a.joules = 10, a.seconds = 1, a.sampled_joules = 11, a.marks = {"x"};
  b.joules = 60, b.seconds = 3, b.sampled_joules = 59, b.marks = {"x", "y"};
  a.gpu = GpuConditions{1000, 900, {}, {}, 40, 41, 80, 700, {"software power cap"}};
  b.gpu = GpuConditions{2000, 1900, {}, {}, 50, 60, 100, 700, {}};
  const EnergyReading sum = joined(a, b);
  EXPECT_EQ(sum.joules, 70);
  EXPECT_EQ(sum.sampled_joules, 70);
  EXPECT_EQ(sum.seconds, 4);
  EXPECT_EQ(sum.marks, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(sum.gpu->sm_mhz_mean, 1750);
  EXPECT_EQ(sum.gpu->sm_mhz_min, 900);
  EXPECT_EQ(sum.gpu->celsius_first, 40);
  EXPECT_EQ(sum.gpu->celsius_most, 60);
  EXPECT_EQ(sum.gpu->slowdowns, std::vector<std::string>{"software power cap"});
  EXPECT_FALSE(sum.gpu->memory_mhz_mean);
  b.joules.reset();
  b.reason = "heat";
  EXPECT_FALSE(joined(a, b).joules);
  EXPECT_EQ(joined(b, a).reason, "heat");
}

}  // namespace
}  // namespace tandem
