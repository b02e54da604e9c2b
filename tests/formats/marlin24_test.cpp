// marlin-24: a file of compressed-tensors 0.13 (tests/oracle/marlin24_golden.py) gives the numbers
// it was made of, as 2:4 in 4 bits; what is not of this form is refused.
#include "formats/marlin24.h"

#include <gtest/gtest.h>

#include "base/error_message.h"
#include "base/thread_pool.h"
#include "formats/compressed_tensors.h"
#include "tensor/sparse.h"

namespace tandem {
namespace {

constexpr int kPatterns[6][2] = {{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}};

float number(int64_t n, int64_t k, int64_t group) {
  const auto& pattern = kPatterns[(7 * n + 5 * (k / 4) + n * (k / 4)) % 6];
  if (k % 4 != pattern[0] && k % 4 != pattern[1]) return 0;
  const int64_t code = (31 * n + 17 * k + n * k) % 15 - 7;
  return static_cast<float>(code == 0 ? 7 : code) *
         static_cast<float>(1 + n % 8 + 8 * (k / group)) / 256;
}

Json config(const std::string& key = "dynamic", const Json& value = false) {
  Json weights = {{"num_bits", 4},       {"type", "int"},      {"symmetric", true},
                  {"strategy", "group"}, {"group_size", 128u}, {"dynamic", false}};
  weights[key] = value;
  Json rows = weights;
  rows["strategy"] = "channel";
  rows["group_size"] = nullptr;
  return {
      {"quant_method", "compressed-tensors"},
      {"format", "marlin-24"},
      {"config_groups",
       {{"group_0",
         {{"targets", {"groups"}}, {"weights", weights}, {"input_activations", nullptr}}},
        {"group_1", {{"targets", {"rows"}}, {"weights", rows}, {"input_activations", nullptr}}}}}};
}

class Marlin24File : public testing::Test {
 protected:
  std::vector<NamedTensor> read(const Json& json) {
    return read_weights(tensors_, read_quantization_config(json, "c"), "f", &planes_, &memory_);
  }

  MappedFile file_{std::filesystem::path(TANDEM_TEST_DIR) / "golden" / "marlin24" /
                   "two.safetensors"};
  SafetensorsFile tensors_ = parse_safetensors(file_.bytes(), "two");
  RepackedPlanes planes_;
  std::vector<std::shared_ptr<const Buffer>> memory_;
};

TEST_F(Marlin24File, GivesTheNumbersItWasMadeOf) {
  ThreadPool pool(2, /*pin=*/false);
  const auto weights = read(config());
  ASSERT_EQ(weights.size(), 2u);
  for (const auto& [name, w] : weights) {
    SCOPED_TRACE(name);
    const int64_t group = name == "groups.weight" ? 128 : 64;
    EXPECT_EQ(w.encoding, int4_group_24(group, ScaleType::f16));
    EXPECT_EQ(w.N, name == "groups.weight" ? 64 : 128);
    EXPECT_EQ(w.K, name == "groups.weight" ? 384 : 64);
    find_planes(planes_, w)->ensure(pool);
    std::vector<float> row(static_cast<size_t>(w.K));
    for (int64_t n = 0; n < w.N; ++n) {
      EXPECT_EQ(first_bad_places(w, n), -1);
      decode_row(w, n, row.data());
      for (int64_t k = 0; k < w.K; ++k) {
        ASSERT_EQ(row[static_cast<size_t>(k)], number(n, k, group))
            << name << " " << n << ", " << k;
      }
    }
  }
}

TEST_F(Marlin24File, PlacesOutOfRangeAreFound) {
  std::vector<std::byte> broken;
  for (SafetensorsEntry& entry : tensors_.tensors) {
    if (entry.name != "rows.meta") continue;
    broken.assign(entry.bytes.begin(), entry.bytes.end());
    broken[0] = std::byte{0};  // places 0 and 0
    entry.bytes = broken;
  }
  ThreadPool pool(1, /*pin=*/false);
  const auto weights = read(config());
  const Weight& w = weights[weights[0].name == "rows.weight" ? 0 : 1].weight;
  find_planes(planes_, w)->ensure(pool);
  EXPECT_EQ(first_bad_places(w, 0), 0);
}

TEST_F(Marlin24File, WhatIsNotOfThisFormIsRefused) {
  const auto refusal = [&](const Json& json) {
    return message_of(ErrorKind::bad_file, [&] { read(json); });
  };
  EXPECT_NE(refusal(config("num_bits", 8)).find("marlin-24 of"), std::string::npos);
  EXPECT_NE(refusal(config("symmetric", false)).find("expected 4 bits, symmetric"),
            std::string::npos);
  EXPECT_NE(refusal(config("group_size", 160u)).find("groups of 160 do not divide a width of 384"),
            std::string::npos);
  EXPECT_NE(refusal(config("group_size", 64u)).find("is F16 [3, 64], expected scales [6, 64]"),
            std::string::npos);
  for (SafetensorsEntry& entry : tensors_.tensors) {
    if (entry.name == "rows.weight_packed") entry.shape = {4, 128};
  }
  EXPECT_NE(refusal(config()).find("'rows.meta' is I16 [2, 256], expected I16 [4, 128]"),
            std::string::npos);
}

}  // namespace
}  // namespace tandem
