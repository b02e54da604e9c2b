// The meters check themselves: known sources give the right joules, broken ones give a reason.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "study/child.h"
#include "study/meters/clock.h"
#include "study/meters/command.h"
#include "study/meters/memory.h"
#include "study/meters/rapl.h"

namespace tandem {
namespace {

void sleep_seconds(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

TEST(IntegratePower, ConstantAndRampByTrapezoid) {
  const EnergyReading constant = integrate_power({{0, 100}, {0.2, 100}, {0.5, 100}}, 2.0);
  EXPECT_NEAR(*constant.joules, 200, 1e-9);
  const EnergyReading ramp = integrate_power({{0, 0}, {1, 50}, {2, 100}}, 2.0);
  EXPECT_NEAR(*ramp.joules, 100, 1e-9);
}

TEST(IntegratePower, BadReadingsGiveAReason) {
  EXPECT_FALSE(integrate_power({{0, 100}, {1, 100}}, 2).joules);
  EXPECT_FALSE(integrate_power({{0, 100}, {1, -5}, {2, 100}}, 2).joules);
  EXPECT_FALSE(integrate_power({{0, 100}, {1, std::nan("")}, {2, 100}}, 2).joules);
  EXPECT_FALSE(integrate_power({{0, 100}, {1, 100}, {1, 100}}, 2).joules);
  EXPECT_NE(integrate_power({{0, 100}, {1, -5}, {2, 100}}, 2).reason.find("-5"), std::string::npos);
}

TEST(IntegrateCounter, StepsAndOneWrap) {
  const EnergyReading plain = integrate_counter({{0, 1000000}, {1, 101000000}, {2, 201000000}}, 0);
  EXPECT_NEAR(*plain.joules, 200, 1e-9);
  EXPECT_NEAR(*plain.watts(), 100, 1e-9);
  const EnergyReading wrapped =
      integrate_counter({{0, 950000000}, {1, 50000000}, {2, 150000000}}, 1000000000);
  EXPECT_NEAR(*wrapped.joules, 200, 1e-9);
}

TEST(IntegrateCounter, GoingBackStandingStillAndJumpsAreFound) {
  EXPECT_NE(integrate_counter({{0, 500}, {1, 400}}, 0).reason.find("went back"), std::string::npos);
  // A step down far below the range would be a wrap of 262 kJ in a second.
  EXPECT_NE(integrate_counter({{0, 500000000}, {1, 400000000}}, 262143328850).reason.find("jumped"),
            std::string::npos);
  EXPECT_NE(integrate_counter({{0, 500}, {1, 500}, {2, 500}}, 1000).reason.find("stood still"),
            std::string::npos);
  EXPECT_FALSE(integrate_counter({{0, 500}}, 1000).joules);
}

TEST(CommandMeter, AHundredWattSourceIsRightToOnePercent) {
  std::string reason;
  const auto meter = open_command_meter("echo 'power: 100.0 W'", reason);
  ASSERT_NE(meter, nullptr) << reason;
  const auto start = std::chrono::steady_clock::now();
  meter->start();
  sleep_seconds(2.05);
  const EnergyReading reading = meter->stop();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ASSERT_TRUE(reading.joules) << reading.reason;
  EXPECT_NEAR(*reading.joules, 100 * reading.seconds, reading.seconds);
  EXPECT_NEAR(reading.seconds, seconds, 0.3);
  EXPECT_GE(reading.seconds, 2.0);
  EXPECT_GE(reading.num_samples, 5);
}

TEST(CommandMeter, FailuresAreReasonsNotZeros) {
  std::string reason;
  EXPECT_EQ(open_command_meter("exit 3", reason), nullptr);
  EXPECT_NE(reason.find("exited with status 3"), std::string::npos) << reason;
  EXPECT_EQ(open_command_meter("echo none", reason), nullptr);
  EXPECT_NE(reason.find("no number"), std::string::npos) << reason;
  const auto negative = open_command_meter("echo -7", reason);
  ASSERT_NE(negative, nullptr);
  negative->start();
  sleep_seconds(0.7);
  EXPECT_FALSE(negative->stop().joules);
}

TEST(CommandMeter, FirstNumber) {
  EXPECT_EQ(first_number("42.5 W"), 42.5);
  EXPECT_EQ(first_number("power=-3"), -3);
  EXPECT_EQ(first_number("- . 7"), 7);
  EXPECT_EQ(first_number("no - number."), std::nullopt);
}

TEST(RaplMeter, SumsPackagesOfAPretendedTree) {
  char name[] = "/tmp/tandem_rapl_XXXXXX";
  ASSERT_NE(mkdtemp(name), nullptr);
  const std::filesystem::path root = name;
  const auto put = [&](const std::string& domain, const std::string& file,
                       const std::string& text) {
    std::filesystem::create_directories(root / domain);
    std::ofstream(root / domain / file) << text << "\n";
  };
  std::string reason;
  EXPECT_EQ(open_rapl_meter(root / "absent", reason), nullptr);
  EXPECT_EQ(open_rapl_meter(root, reason), nullptr);
  EXPECT_NE(reason.find("no RAPL package"), std::string::npos);
  for (const std::string domain : {"intel-rapl:0", "intel-rapl:1"}) {
    put(domain, "name", "package-" + domain.substr(11));
    put(domain, "max_energy_range_uj", "1000000000");
    put(domain, "energy_uj", "990000000");
  }
  put("intel-rapl:0:0", "name", "core");
  put("intel-rapl:0:0", "energy_uj", "5");
  const auto meter = open_rapl_meter(root, reason);
  ASSERT_NE(meter, nullptr) << reason;
  EXPECT_EQ(meter->source(), "RAPL package (2 sockets)");
  meter->start();
  sleep_seconds(0.25);
  put("intel-rapl:0", "energy_uj", "10000000");   // 20 J, wrapped
  put("intel-rapl:1", "energy_uj", "995000000");  // 5 J
  const EnergyReading reading = meter->stop();
  ASSERT_TRUE(reading.joules) << reading.reason;
  EXPECT_NEAR(*reading.joules, 25, 1e-9);
  meter->start();
  sleep_seconds(0.05);
  EXPECT_NE(meter->stop().reason.find("stood still"), std::string::npos);
  std::filesystem::remove_all(root);
}

TEST(Memory, PeakIsThereAndFieldsParse) {
  EXPECT_GT(peak_resident_bytes(), uint64_t{1} << 20);
  EXPECT_EQ(status_field_bytes("VmPeak:\t 9 kB\nVmHWM:\t    1234 kB\n", "VmHWM:"), 1234u * 1024);
  EXPECT_EQ(status_field_bytes("VmPeak:\t 9 kB\n", "VmHWM:"), 0u);
}

TEST(Clock, DecodeIsTimedWhileAllSequencesRun) {
  // Two sequences of 4 tokens; the second is prefilled in the second step.
  const std::vector<StepTiming> steps = {{1'000'000'000, 1, 1, 0},
                                         {2'000'000'000, 2, 1, 0},
                                         {3'000'000'000, 2, 0, 0},
                                         {4'000'000'000, 2, 0, 1},
                                         {9'000'000'000, 1, 0, 1}};
  const Speed speed = speed_of(steps, 0, 2, 100);
  EXPECT_DOUBLE_EQ(speed.first_token_seconds, 2);
  EXPECT_DOUBLE_EQ(speed.prefill_tokens_per_second, 100);
  EXPECT_EQ(speed.decode_tokens, 4);
  EXPECT_DOUBLE_EQ(speed.decode_seconds, 2);
  EXPECT_DOUBLE_EQ(speed.decode_tokens_per_second, 2);
  EXPECT_THROW(speed_of({{1'000'000'000, 1, 1, 1}, {2'000'000'000, 1, 1, 1}}, 0, 2, 100), Error);
}

TEST(Child, OutputStatusAndTimeout) {
  const ChildResult fine = run_child({"/bin/sh", "-c", "echo out; echo err >&2"});
  EXPECT_TRUE(fine.ok());
  EXPECT_EQ(fine.output, "out\n");
  EXPECT_EQ(fine.messages, "err\n");
  EXPECT_EQ(run_child({"/bin/sh", "-c", "exit 4"}).outcome(), "exited with status 4");
  EXPECT_EQ(run_child({"/bin/sh", "-c", "kill -9 $$"}).outcome(),
            "was killed by signal 9 (Killed)");
  EXPECT_EQ(run_child({"/does/not/exist"}).outcome(), "exited with status 127");
  EXPECT_TRUE(run_child({"/bin/sh", "-c", "sleep 30"}, 0.1).timed_out);
}

}  // namespace
}  // namespace tandem
