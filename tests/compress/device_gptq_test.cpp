// GPTQ, its factor and the statistics on a GPU against those on the host: the same rules, sums in
// another order. Skipped without a GPU.
#include "compress/device_gptq.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/random.h"

namespace tandem {
namespace {

class DeviceGptq : public testing::Test {
 protected:
  void SetUp() override {
    try {
      device_ = open_device("cuda");
      work_ = make_float_work(*device_);
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();
    }
  }
  std::shared_ptr<Device> device_;
  std::unique_ptr<FloatWork> work_;
  ThreadPool pool_{2};
};

// Inputs whose channels depend on each other and differ in size; channel 40 is always 0.
Matrix correlated_inputs(int64_t T, int64_t K, uint64_t seed) {
  Random random(seed);
  Matrix x(T, K);
  for (int64_t t = 0; t < T; ++t) {
    double previous = 0;
    for (int64_t k = 0; k < K; ++k) {
      previous = 0.7 * previous + random.normal() * (1 + 3 * (k % 7 == 2));
      x.row(t)[k] = k == 40 ? 0.0f : static_cast<float>(previous);
    }
  }
  return x;
}

Matrix random_matrix(int64_t N, int64_t K, uint64_t seed) {
  Matrix w(N, K);
  Random random(seed);
  for (float& value : w.values) value = static_cast<float>(random.normal());
  return w;
}

std::vector<uint8_t> mask_of(int64_t count) {
  std::vector<uint8_t> keep(static_cast<size_t>(count));
  for (size_t i = 0; i < keep.size(); ++i) keep[i] = i % 4 == 1 || i % 4 == 2;
  return keep;
}

InputStatistics statistics_of(const Matrix& x, ThreadPool& pool) {
  StatisticsBuilder builder(x.K, x.N, 4, /*with_gram=*/true, pool);
  builder.add(x.values.data(), x.N);
  return builder.finish();
}

// In two pieces.
InputStatistics statistics_on(FloatWork& work, const Matrix& x, GramPlace place, ThreadPool& pool) {
  StatisticsBuilder builder(x.K, x.N, 4, place, work, pool);
  Buffer inputs(x.values.size() * sizeof(float), &work.device());
  work.device().upload(inputs.data(), x.values.data(), inputs.size_bytes());
  const int64_t first = x.N / 3;
  builder.add(inputs.as<float>(), first);
  builder.add(inputs.as<float>() + first * x.K, x.N - first);
  return builder.finish();
}

// tr((a - w) G (a - w)^T)
double output_error(const GridMatrix& grid, const Matrix& w, const InputStatistics& inputs) {
  double sum = 0;
  std::vector<float> row(static_cast<size_t>(w.K));
  for (int64_t n = 0; n < w.N; ++n) {
    decode_row(grid, n, row.data());
    for (int64_t k = 0; k < w.K; ++k) row[static_cast<size_t>(k)] -= w.row(n)[k];
    for (int64_t i = 0; i < w.K; ++i) {
      double product = 0;
      for (int64_t j = 0; j < w.K; ++j) {
        product += static_cast<double>(inputs.gram_row(i)[j]) * static_cast<double>(row[static_cast<size_t>(j)]);
      }
      sum += product * static_cast<double>(row[static_cast<size_t>(i)]);
    }
  }
  return sum;
}

TEST_F(DeviceGptq, StatisticsAreTheHosts) {
  const Matrix x = correlated_inputs(1500, 320, 1);
  const InputStatistics host = statistics_of(x, pool_);
  const InputStatistics there = statistics_on(*work_, x, GramPlace::host, pool_);
  EXPECT_EQ(there.device_gram, nullptr);
  EXPECT_EQ(there.max_magnitude, host.max_magnitude);
  EXPECT_EQ(there.sample.values, host.sample.values);
  for (int64_t k = 0; k < x.K; ++k) {
    const auto at = static_cast<size_t>(k);
    EXPECT_FLOAT_EQ(there.mean_magnitude[at], host.mean_magnitude[at]);
    for (int64_t j = 0; j < x.K; ++j) {
      ASSERT_NEAR(there.gram_row(k)[j], host.gram_row(k)[j], 2e-6 * host.power(2)) << k << ' ' << j;
    }
  }
  const InputStatistics kept = statistics_on(*work_, x, GramPlace::device, pool_);
  EXPECT_TRUE(kept.gram.empty());
  for (int64_t k = 0; k < x.K; ++k) EXPECT_EQ(kept.power(k), there.power(k));
}

TEST_F(DeviceGptq, FactorIsTheHosts) {
  const Matrix x = correlated_inputs(1500, 320, 2);
  const InputStatistics host = statistics_of(x, pool_);
  const InputStatistics there = statistics_on(*work_, x, GramPlace::device, pool_);
  for (const bool ordered : {false, true}) {
    const std::vector<int32_t> order = ordered ? act_order(host) : std::vector<int32_t>();
    const InverseFactor expected = inverse_factor(host, 0.01, order, pool_);
    for (const InputStatistics* inputs : {&there, &host}) {  // the gram there, and to be copied
      const DeviceFactor found = device_inverse_factor(*inputs, 0.01, order, *work_);
      EXPECT_EQ(found.damping, expected.damping);
      std::vector<float> upper(expected.upper.size());
      device_->download(upper.data(), found.upper.data(), upper.size() * sizeof(float));
      double difference = 0, size = 0;
      for (size_t i = 0; i < upper.size(); ++i) {
        difference += std::pow(static_cast<double>(upper[i] - expected.upper[i]), 2);
        size += std::pow(static_cast<double>(expected.upper[i]), 2);
      }
      EXPECT_LT(std::sqrt(difference / size), 1e-4);
    }
  }
}

TEST_F(DeviceGptq, DampingIsRaisedAsOnTheHost) {
  InputStatistics inputs;
  inputs.K = 4;
  inputs.gram = {1, 1.2f, 0, 0, 1.2f, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};  // not positive definite
  const InverseFactor expected = inverse_factor(inputs, 0.01, {}, pool_);
  EXPECT_GT(expected.damping, 0.1);
  EXPECT_EQ(device_inverse_factor(inputs, 0.01, {}, *work_).damping, expected.damping);
  inputs.gram[0] = NAN;
  EXPECT_THROW(device_inverse_factor(inputs, 0.01, {}, *work_), Error);
}

struct Case {
  const char* name;
  GptqOptions options;
  bool masked = false;
};

TEST_F(DeviceGptq, CodesAreTheHosts) {
  const int64_t N = 37, K = 320;
  const IntegerGrid symmetric{4, 64, true, ScaleType::bf16};
  const Case cases[] = {
      {"default", {symmetric, ColumnOrder::group_aware}},
      {"natural, whole rows", {{4, 0, true, ScaleType::bf16}, ColumnOrder::natural}},
      {"groups wider than a block", {{4, 160, false, ScaleType::f16}, ColumnOrder::natural}},
      {"act", {{3, 32, false, ScaleType::f16}, ColumnOrder::act}},
      {"act, static groups", {{4, 64, false, ScaleType::f32}, ColumnOrder::act, true}},
      {"search", {symmetric, ColumnOrder::group_aware, false, true}},
      {"static search", {{4, 32, false, ScaleType::bf16}, ColumnOrder::act, true, true}},
      {"8 bits", {{8, 80, true, ScaleType::bf16}, ColumnOrder::natural}},
      {"mask", {symmetric, ColumnOrder::group_aware}, true},
      {"mask, act", {{4, 32, false, ScaleType::f16}, ColumnOrder::act}, true},
  };
  const Matrix w = random_matrix(N, K, 3);
  const InputStatistics inputs = statistics_of(correlated_inputs(1500, K, 4), pool_);
  for (const Case& each : cases) {
    const std::vector<uint8_t> keep = each.masked ? mask_of(N * K) : std::vector<uint8_t>();
    const std::vector<int32_t> order = column_order(each.options, inputs);
    const GridMatrix expected =
        gptq(w, keep, inverse_factor(inputs, 0.01, order, pool_), each.options, pool_);
    const GridMatrix found = device_gptq(
        w, keep, device_inverse_factor(inputs, 0.01, order, *work_), each.options, *work_);
    EXPECT_EQ(found.columns, expected.columns) << each.name;
    int64_t equal = 0;
    for (size_t i = 0; i < expected.codes.size(); ++i) equal += found.codes[i] == expected.codes[i];
    const double share = static_cast<double>(equal) / static_cast<double>(N * K);
    EXPECT_GT(share, 0.98) << each.name;

    EXPECT_NEAR(output_error(found, w, inputs) / output_error(expected, w, inputs), 1.0, 0.01)
        << each.name;
    std::printf("%s: %.4f of the codes are equal\n", each.name, share);
    if (!each.masked) continue;
    std::vector<float> row(static_cast<size_t>(K));
    for (int64_t n = 0; n < N; ++n) {
      decode_row(found, n, row.data());
      for (int64_t k = 0; k < K; ++k) {
        if (keep[static_cast<size_t>(n * K + k)] != 0) continue;
        ASSERT_EQ(row[static_cast<size_t>(k)], 0.0f) << each.name;
      }
    }
  }
}

}  // namespace
}  // namespace tandem
