// GGUF's quantizers against blocks that the gguf package made, and K-quants against what any choice
// of scales can reach.
#include "compress/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "base/file.h"
#include "base/json.h"
#include "tensor/weight.h"

namespace tandem {
namespace {

std::vector<std::byte> from_hex(const std::string& hex) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::vector<float> decode(const Encoding& encoding, const std::vector<std::byte>& bytes,
                          int64_t K) {
  std::vector<float> out(static_cast<size_t>(K));
  decode_row({.encoding = encoding, .N = 1, .K = K, .data = bytes.data()}, 0, out.data());
  return out;
}

std::vector<float> round_trip(const Encoding& encoding, const std::vector<float>& row) {
  const auto K = static_cast<int64_t>(row.size());
  std::vector<std::byte> bytes(encoding.row_bytes(K));
  quantize_row(encoding, row.data(), K, bytes.data());
  return decode(encoding, bytes, K);
}

double mean_square(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(double{a[i]} - double{b[i]}, 2);
  return sum / static_cast<double>(a.size());
}

std::vector<float> normal_row(size_t K, float sigma, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, sigma);
  std::vector<float> row(K);
  for (float& w : row) w = normal(generator);
  return row;
}

TEST(Quantize, BlocksAreThoseOfTheReference) {
  const std::string path = TANDEM_TEST_DIR "/golden/compress/gguf_blocks.json";
  const Json golden = parse_json(read_text_file(path, 1 << 20), path);
  ASSERT_GE(golden["rows"].size(), 30u);
  for (const Encoding& encoding : {kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kF16, kBF16}) {
    const Json& expected = golden[encoding.name()];
    ASSERT_EQ(expected.size(), golden["rows"].size());
    for (size_t i = 0; i < expected.size(); ++i) {
      const std::vector<std::byte> row = from_hex(golden["rows"][i].get<std::string>());
      std::vector<float> values(row.size() / sizeof(float));
      std::memcpy(values.data(), row.data(), row.size());
      const auto K = static_cast<int64_t>(values.size());
      std::vector<std::byte> bytes(encoding.row_bytes(K));
      quantize_row(encoding, values.data(), K, bytes.data());
      EXPECT_EQ(bytes, from_hex(expected[i].get<std::string>())) << encoding.name() << " row " << i;
    }
  }
}

// Numbers that a super-block can hold come back: every 6-bit scale and every code is where the
// decoder looks for it.
TEST(Quantize, Q4KFindsNumbersThatLieOnAGrid) {
  std::mt19937 generator(5);
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::vector<float> row(256);
    for (int g = 0; g < 8; ++g) {
      // Scales reach 63 and minimums too, so that the super-block's own numbers are exact.
      const int scale = g == 2 ? 63 : 1 + static_cast<int>(generator() % 63);
      const int min = g == 5 ? 63 : static_cast<int>(generator() % 64);
      for (int i = 0; i < 32; ++i) {
        const int code = i < 2 ? i * 15 : static_cast<int>(generator() % 16);
        row[static_cast<size_t>(g * 32 + i)] =
            static_cast<float>(scale * code) / 256 - static_cast<float>(min) / 64;
      }
    }
    const std::vector<float> out = round_trip(kQ4_K, row);
    for (size_t k = 0; k < row.size(); ++k) EXPECT_NEAR(out[k], row[k], 0.15f) << "element " << k;
    EXPECT_LT(mean_square(out, row), 2e-3);
  }
}

TEST(Quantize, Q6KFindsNumbersThatLieOnAGrid) {
  std::mt19937 generator(6);
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::vector<float> row(256);
    for (int g = 0; g < 16; ++g) {
      const int scale = g == 3 ? -128 : 20 + static_cast<int>(generator() % 108);
      for (int i = 0; i < 16; ++i) {
        const int code = i == 0 ? -32 : static_cast<int>(generator() % 64) - 32;
        row[static_cast<size_t>(g * 16 + i)] = static_cast<float>(scale * code) / 4096;
      }
    }
    EXPECT_EQ(round_trip(kQ6_K, row), row);
  }
}

// Relative errors of normally distributed weights.
TEST(Quantize, KQuantsAreAsPreciseAsTheirBitsAllow) {
  double signal = 0, q4 = 0, q6 = 0;
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const std::vector<float> row = normal_row(1024, 0.02f, seed);
    signal += mean_square(row, std::vector<float>(row.size(), 0.0f));
    q4 += mean_square(row, round_trip(kQ4_K, row));
    q6 += mean_square(row, round_trip(kQ6_K, row));
  }
  EXPECT_LT(std::sqrt(q4 / signal), 0.073);
  EXPECT_LT(std::sqrt(q6 / signal), 0.0185);
}

TEST(Quantize, KQuantsTakeAwkwardRows) {
  for (const Encoding& encoding : {kQ4_K, kQ6_K}) {
    const std::vector<float> zeros(256, 0.0f);
    EXPECT_EQ(round_trip(encoding, zeros), zeros) << encoding.name();
    for (const float value : {1.0f, -1.0f, 65504.0f, -65504.0f, 1e-30f, 1e-45f}) {
      const std::vector<float> out = round_trip(encoding, std::vector<float>(256, value));
      const float limit = std::max(std::fabs(value) * 0.01f, 1e-7f);
      for (const float w : out) EXPECT_NEAR(w, value, limit) << encoding.name();
    }
    std::vector<float> outlier(256, 0.0f);
    outlier[77] = 100.0f;
    EXPECT_NEAR(round_trip(encoding, outlier)[77], 100.0f, 1.0f) << encoding.name();
  }
}

TEST(Quantize, ARowFitsUpToTheLargestNumberOfItsType) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const Encoding& encoding : {kF32, kBF16, kF16, kQ8_0, kQ4_0, kQ4_K, kQ6_K}) {
    std::vector<float> row(256, 1.0f);
    EXPECT_TRUE(row_fits(encoding, row.data(), 256)) << encoding.name();
    for (const float bad : {infinity, -infinity, std::nanf("")}) {
      row[200] = bad;
      EXPECT_FALSE(row_fits(encoding, row.data(), 256)) << encoding.name();
    }
    row[200] = -65505.0f;
    EXPECT_EQ(row_fits(encoding, row.data(), 256), encoding == kF32 || encoding == kBF16)
        << encoding.name();
    row[200] = std::numeric_limits<float>::max();
    EXPECT_EQ(row_fits(encoding, row.data(), 256), encoding == kF32) << encoding.name();
    row[200] = 65504.0f;
    ASSERT_TRUE(row_fits(encoding, row.data(), 256)) << encoding.name();
    for (const float w : round_trip(encoding, row)) EXPECT_TRUE(std::isfinite(w));
  }
}

}  // namespace
}  // namespace tandem
