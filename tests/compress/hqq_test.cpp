// HQQ of small matrices: by hand, against its own definition computed plainly, and by what it
// promises.
#include "compress/hqq.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "tensor/dtype.h"
#include "tensor/weight.h"

namespace tandem {
namespace {

constexpr IntegerGrid kGroupsOf32{4, 32, false, ScaleType::f32};

Matrix random_matrix(int64_t N, int64_t K, uint64_t seed, float deviation) {
  Matrix w(N, K);
  Random random(seed);
  for (float& value : w.values) value = deviation * static_cast<float>(random.normal());
  return w;
}

double mean_error(const Matrix& w, const RealZeroMatrix& fitted) {
  const int64_t group = w.K / fitted.groups();
  double sum = 0;
  for (size_t i = 0; i < w.values.size(); ++i) {
    const size_t g = i / static_cast<size_t>(group);
    const float value = (fitted.codes[i] - fitted.zeros[g]) * fitted.scales[g];
    sum += std::fabs(w.values[i] - value);
  }
  return sum / static_cast<double>(w.values.size());
}

// The text of the definition for one group, in double.
void define_hqq(const float* w, int n, int bits, int iterations, double* inverse, double* zero) {
  const auto [low, high] = std::minmax_element(w, w + n);
  const double top = (1 << bits) - 1;
  *inverse = std::min(top / (*high - *low), 2e4);
  *zero = -*low * *inverse;
  for (int i = 0; i < iterations; ++i) {
    double sum = 0;
    for (int k = 0; k < n; ++k) {
      const double q = std::clamp(std::nearbyint(w[k] * *inverse + *zero), 0.0, top);
      const double d = w[k] - (q - *zero) / *inverse;
      const double e =
          std::copysign(std::max(std::fabs(d) - std::pow(std::fabs(d), 0.7 - 1) / 10, 0.0), d);
      sum += q - (w[k] - e) * *inverse;
    }
    *zero = sum / n;
  }
}

TEST(Hqq, OneGroupIsTheDefinition) {
  ThreadPool pool(1, false);
  // With a deviation of 4 most errors are outlying and take the power.
  for (const float deviation : {0.02f, 4.0f}) {
    for (const int bits : {3, 4, 8}) {
      const Matrix w = random_matrix(1, 40, 5, deviation);
      // One iteration always happens: later ones depend on whether the first gained.
      const RealZeroMatrix fitted =
          hqq(w, {bits, 0, false, ScaleType::f32}, {.max_iterations = 1}, pool);
      double inverse = 0, zero = 0;
      define_hqq(w.row(0), 40, bits, 1, &inverse, &zero);
      EXPECT_NEAR(fitted.scales[0] * inverse, 1.0, 1e-6);
      EXPECT_NEAR(fitted.zeros[0], zero, 1e-4) << bits << " " << deviation;
    }
  }
}

TEST(Hqq, StopsWhenTheErrorDoesAndIsBelowTheFirstFit) {
  ThreadPool pool(2, false);
  const Matrix w = random_matrix(64, 256, 7, 0.05f);
  const RealZeroMatrix first = hqq(w, kGroupsOf32, {.max_iterations = 0}, pool);
  const RealZeroMatrix last = hqq(w, kGroupsOf32, {}, pool);
  EXPECT_EQ(first.iterations, 0);
  EXPECT_GT(last.iterations, 1);
  EXPECT_LE(last.iterations, 20);
  EXPECT_LT(mean_error(w, last), 0.995 * mean_error(w, first));
}

TEST(Hqq, IsTheSameOnAnyNumberOfThreads) {
  ThreadPool one(1, false), two(2, false);
  const Matrix w = random_matrix(50, 128, 11, 0.05f);
  const RealZeroMatrix a = hqq(w, kGroupsOf32, {}, one), b = hqq(w, kGroupsOf32, {}, two);
  EXPECT_EQ(a.codes, b.codes);
  EXPECT_EQ(a.zeros, b.zeros);
}

TEST(Hqq, NumbersOnTheGridComeBackExactly) {
  Matrix w(1, 32);
  for (int k = 0; k < 32; ++k)
    w.values[static_cast<size_t>(k)] = 0.25f * static_cast<float>(k % 16) - 1.5f;
  ThreadPool pool(1, false);
  const RealZeroMatrix fitted = hqq(w, kGroupsOf32, {}, pool);
  EXPECT_EQ(fitted.scales[0], 0.25f);
  EXPECT_EQ(fitted.zeros[0], 6.0f);
  std::vector<std::byte> block(20);
  store_q4_1_row(fitted, w.row(0), 0, block.data());
  std::vector<float> decoded(32);
  decode_row({kQ4_1, 1, 32, block.data()}, 0, decoded.data());
  EXPECT_EQ(decoded, w.values);
}

TEST(Hqq, AConstantGroupKeepsItsNumber) {
  Matrix w(2, 32);
  std::fill_n(w.values.begin(), 32, 0.75f);
  ThreadPool pool(1, false);
  const RealZeroMatrix fitted = hqq(w, kGroupsOf32, {}, pool);
  EXPECT_EQ(mean_error(w, fitted), 0.0);
}

TEST(Hqq, IntegerZerosSpanZeroAndAreCodes) {
  ThreadPool pool(1, false);
  // All positive: a real zero would be -15 and more, which no code holds.
  Matrix w(1, 32);
  for (int k = 0; k < 32; ++k)
    w.values[static_cast<size_t>(k)] = 15.0f + static_cast<float>(k % 16);
  const GridMatrix rounded = hqq_integer_zeros(w, kGroupsOf32, {}, pool);
  EXPECT_LE(rounded.zeros[0], 1);
  std::vector<float> decoded(32);
  decode_row(rounded, 0, decoded.data());
  for (size_t k = 0; k < 32; ++k) EXPECT_NEAR(decoded[k], w.values[k], 1.01f) << k;

  const Matrix mixed = random_matrix(16, 64, 3, 0.05f);
  const GridMatrix of_mixed = hqq_integer_zeros(mixed, {3, 32, false, ScaleType::bf16}, {}, pool);
  for (const uint8_t zero : of_mixed.zeros) EXPECT_LE(zero, 7);
  for (const uint8_t code : of_mixed.codes) EXPECT_LE(code, 7);
  for (const float scale : of_mixed.scales) EXPECT_EQ(scale, bf16_to_float(float_to_bf16(scale)));
}

TEST(Hqq, Q4_1CodesAreTheNearestOfTheStoredNumbers) {
  ThreadPool pool(1, false);
  const Matrix w = random_matrix(4, 64, 13, 0.05f);
  const RealZeroMatrix fitted = hqq(w, {4, 32, false, ScaleType::f16}, {}, pool);
  std::vector<std::byte> bytes(40);
  std::vector<uint8_t> codes(64);
  std::vector<float> scales(2), mins(2);
  for (int64_t n = 0; n < 4; ++n) {
    store_q4_1_row(fitted, w.row(n), n, bytes.data());
    decode_row_codes({kQ4_1, 1, 64, bytes.data()}, 0, codes.data(), scales.data(), mins.data());
    for (size_t k = 0; k < 64; ++k) {
      const float steps = (w.row(n)[k] - mins[k / 32]) / scales[k / 32];
      EXPECT_EQ(codes[k], std::clamp(std::nearbyint(steps), 0.0f, 15.0f)) << n << " " << k;
      EXPECT_EQ(scales[k / 32], fitted.scales[static_cast<size_t>(n) * 2 + k / 32]);
    }
  }
}

TEST(Hqq, AgreesWithTheLibrary) {
  const std::string path = TANDEM_TEST_DIR "/golden/compress/hqq.json";
  const Json golden = parse_json(read_text_file(path, 1 << 22), path);
  const auto N = static_cast<int64_t>(golden["rows"].size());
  Matrix w(N, 128);
  for (int64_t n = 0; n < N; ++n) {
    for (size_t k = 0; k < 128; ++k)
      w.row(n)[k] = bf16_to_float(golden["rows"][static_cast<size_t>(n)][k]);
  }
  ThreadPool pool(1, false);
  ASSERT_EQ(golden["cases"].size(), 3u);
  for (const Json& made : golden["cases"]) {
    const int bits = made["bits"];
    const RealZeroMatrix ours = hqq(w, {bits, made["group"], false, ScaleType::f32}, {}, pool);
    const auto zeros = made["zeros"].get<std::vector<float>>();
    const auto scales = made["scales"].get<std::vector<float>>();
    const auto codes = made["codes"].get<std::vector<int>>();
    ASSERT_EQ(zeros.size(), ours.zeros.size());
    for (size_t g = 0; g < zeros.size(); ++g) {
      EXPECT_NEAR(ours.scales[g] / scales[g], 1.0, 1e-6) << bits << " group " << g;
      EXPECT_NEAR(ours.zeros[g], zeros[g], 2e-3) << bits << " group " << g;
    }
    // Sums in another order move a zero in its last bits, and a code that lies half way with it.
    int different = 0;
    for (size_t i = 0; i < codes.size(); ++i) different += codes[i] != ours.codes[i];
    EXPECT_LE(different, 8) << bits << " of " << codes.size();
  }
}

}  // namespace
}  // namespace tandem
