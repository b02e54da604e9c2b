// The GPU's ops besides linear and attention against ref: quantization to the bit, norms and
// activations closely, the device's argmax.
#include <algorithm>
#include <cmath>

#include "kernels/cuda_memory.h"
#include "kernels/table.h"

namespace tandem {
namespace {

class CudaOps : public testing::TestWithParam<OpSet> {
 protected:
  void SetUp() override {
    std::string reason;
    device_ = cuda_or_null(&reason, GetParam().isa);
    if (device_ == nullptr) GTEST_SKIP() << reason;
    context_ = {&pool_, device_.get()};
  }
  const OpSet& cuda() { return GetParam(); }
  const OpSet& ref() { return find_ops("ref"); }

  std::shared_ptr<Device> device_;
  ThreadPool pool_{2};
  Context context_;
};

TEST_P(CudaOps, QuantizeGivesTheSameCodes) {
  for (const ActType type :
       {ActType::int8_block, ActType::int8_token, ActType::fp8_token, ActType::int8_outlier,
        ActType::fp8_block, ActType::fp8_static, ActType::int8_static}) {
    if (type == ActType::int8_outlier && cuda().isa != std::string_view("cuda")) {
      continue;  // no linear of an older GPU takes them
    }
    for (const int64_t K : {1, 31, 32, 33, 172, 576, 4096, 14336, 28672, 40000}) {
      std::vector<float> x = random_inputs(type, 9 * K, 1);
      std::fill_n(x.begin(), K, 0.0f);        // a row of zeros
      std::fill_n(x.begin() + K, K, 1e-37f);  // too small for a scale
      x[static_cast<size_t>(2 * K)] = NAN;
      x[static_cast<size_t>(4 * K - 1)] = INFINITY;
      OnDevice<float> on_device(*device_, x);
      DeviceActivations a(*device_, type, 9, K);
      OwnedActivations b(type, 9, K);
      cuda().quantize(context_, on_device.data(), K, a.view);
      ref().quantize(context_, x.data(), K, b.view);
      a.fetch();
      EXPECT_EQ(a.host.codes, b.codes) << "K " << K;
      const auto equal = [](float p, float q) {
        return p == q || (std::isnan(p) && std::isnan(q));
      };
      EXPECT_TRUE(std::ranges::equal(a.host.scales, b.scales, equal)) << "K " << K;
      if (type != ActType::int8_block)
        continue;  // no kernel of the GPU reads a token's sum, none writes it
      EXPECT_TRUE(std::ranges::equal(a.host.sums, b.sums, equal)) << "K " << K;
    }
  }
}

// Activations for weights whose columns have another order, from every op that makes any.
TEST_P(CudaOps, OrdersChannels) {
  constexpr int64_t T = 3;
  for (const ActType type : {ActType::f16, ActType::int8_block}) {
    for (const int64_t K : {32, 96, 576, 14336, 28672}) {
      std::vector<int32_t> columns(static_cast<size_t>(K));
      for (int64_t k = 0; k < K; ++k)
        columns[static_cast<size_t>(k)] = static_cast<int32_t>((k * 35 + 11) % K);
      const std::vector<float> x = random_floats(T * 2 * K, 4), weight = random_floats(K, 5);
      std::vector<float> ordered = x, ordered_weight = weight;  // of each run of K numbers
      for (int64_t k = 0; k < K; ++k) {
        const auto from = static_cast<size_t>(columns[static_cast<size_t>(k)]);
        ordered_weight[static_cast<size_t>(k)] = weight[from];
        for (size_t t = 0; t < 2 * T; ++t)
          ordered[t * static_cast<size_t>(K) + static_cast<size_t>(k)] =
              x[t * static_cast<size_t>(K) + from];
      }
      OnDevice<float> given(*device_, x), given_weight(*device_, weight), same(*device_, ordered),
          same_weight(*device_, ordered_weight);
      OnDevice<int32_t> on_device(*device_, columns);
      for (const int op : {0, 1, 2}) {
        const auto make = [&](OnDevice<float>& in, OnDevice<float>& norm, const int32_t* order) {
          DeviceActivations out(*device_, type, T, K);
          out.view.columns = order;
          if (op == 0) cuda().quantize(context_, in.data(), 2 * K, out.view);
          if (op == 1) cuda().rms_norm(context_, in.data(), T, K, norm.data(), 1e-5f, out.view);
          if (op == 2) cuda().act_mul(context_, in.data(), T, K, out.view);
          out.fetch();
          std::vector<double> values;
          for (int64_t i = 0; i < T * K; ++i) values.push_back(out.value(i / K, i % K));
          return values;
        };
        const std::vector<double> a = make(given, given_weight, on_device.data()),
                                  b = make(same, same_weight, nullptr);
        // A norm's sum has another order: a number may round to its neighbour.
        const double off = op != 1 ? 0.0 : type == ActType::f16 ? 0.01 : 0.05;
        for (size_t i = 0; i < a.size(); ++i)
          ASSERT_NEAR(a[i], b[i], off) << "op " << op << " K " << K << " at " << i;
      }
    }
  }
}

TEST_P(CudaOps, RmsNormAndActMul) {
  for (const int64_t C : {8, 17, 64, 576, 4096, 9216}) {
    const std::vector<float> x = random_floats(11 * 2 * C, 2, 3.0), weight = random_floats(C, 3);
    OnDevice<float> x_device(*device_, x), weight_device(*device_, weight);
    for (const bool gated : {false, true}) {
      DeviceActivations a(*device_, ActType::f32, 11, C), half(*device_, ActType::bf16, 11, C);
      OwnedActivations b(ActType::f32, 11, C);
      if (gated) {
        cuda().act_mul(context_, x_device.data(), 11, C, a.view);
        cuda().act_mul(context_, x_device.data(), 11, C, half.view);
        ref().act_mul(context_, x.data(), 11, C, b.view);
      } else {
        cuda().rms_norm(context_, x_device.data(), 11, C, weight_device.data(), 1e-5f, a.view);
        cuda().rms_norm(context_, x_device.data(), 11, C, weight_device.data(), 1e-5f, half.view);
        ref().rms_norm(context_, x.data(), 11, C, weight.data(), 1e-5f, b.view);
      }
      a.fetch();
      for (int64_t i = 0; i < 11 * C; ++i) {
        const float expected = b.f32[static_cast<size_t>(i)];
        ASSERT_NEAR(a.host.f32[static_cast<size_t>(i)], expected, 4e-6 * std::fabs(expected) + 1e-7)
            << C << " " << i;
        ASSERT_NEAR(half.value(i / C, i % C), expected, 0.00391 * std::fabs(expected) + 1e-7)
            << C << " " << i;
      }
      for (int64_t t = 0; t < 11; ++t) {
        for (int64_t k = C; k < half.view.K_padded(); ++k)
          ASSERT_EQ(half.value(t, k), 0.0) << "padding";
      }
    }
  }
}

TEST_P(CudaOps, ArgmaxTakesTheLowestOfEqualsAndSeesNaN) {
  constexpr int64_t V = 49155;
  std::vector<float> logits = random_floats(5 * V, 7);
  logits[40000] = logits[1234] = 50;  // equals
  logits[V + 777] = -0.5f;
  std::fill_n(&logits[V], 700, -3.0f);
  logits[2 * V + 11] = NAN;
  std::fill_n(&logits[3 * V], V, -INFINITY);
  std::fill_n(&logits[4 * V], V, -7.0f);
  logits[5 * V - 1] = -6.0f;  // the last of them, all negative
  OnDevice<float> on_device(*device_, logits);
  OnDevice<int32_t> ids(*device_, std::vector<int32_t>(5, 99));
  cuda().device->argmax(context_, on_device.data(), 5, V, ids.data());
  const std::vector<int32_t> found = ids.values();
  EXPECT_EQ(found[0], 1234);
  EXPECT_EQ(found[1], std::max_element(&logits[V], &logits[2 * V]) - &logits[V]);
  EXPECT_EQ(found[2], -1);
  EXPECT_EQ(found[3], -1);
  EXPECT_EQ(found[4], V - 1);
}

INSTANTIATE_TEST_SUITE_P(Sets, CudaOps, testing::ValuesIn(cuda_op_sets()),
                         [](const auto& set) { return std::string(set.param.isa); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(CudaOps);

}  // namespace
}  // namespace tandem
