// The GPU's ops besides linear against ref: quantization to the bit, norms and activations closely,
// attention over ragged batches on scattered pages, the device's argmax.
#include <algorithm>
#include <cmath>

#include "kernels/cuda_memory.h"
#include "kernels/table.h"

namespace tandem {
namespace {

class CudaOps : public testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    device_ = cuda_or_null(&reason);
    if (device_ == nullptr) GTEST_SKIP() << reason;
    context_ = {&pool_, device_.get()};
  }
  const OpSet& cuda() { return find_ops("cuda"); }
  const OpSet& ref() { return find_ops("ref"); }
  void check_attention(int64_t H, int64_t G, int64_t D, int64_t window);

  std::shared_ptr<Device> device_;
  ThreadPool pool_{2};
  Context context_;
};

TEST_F(CudaOps, QuantizeGivesTheSameCodes) {
  for (const ActType type : {ActType::int8_block, ActType::int8_token, ActType::fp8_token}) {
    for (const int64_t K : {1, 31, 32, 33, 172, 576, 4096, 14336, 28672, 40000}) {
      std::vector<float> x = random_floats(9 * K, 1);
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

TEST_F(CudaOps, RmsNormAndActMul) {
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

// Appends and attends three ragged sequences in several steps. Stale pages hold NaN: nothing beyond
// a sequence's end may matter.
void CudaOps::check_attention(int64_t H, int64_t G, int64_t D, int64_t window) {
  SCOPED_TRACE(fmt::format("H {} G {} D {} window {}", H, G, D, window));
  const KvLayout layout{KvType::bf16, 2, G, D, window};
  const std::vector<float> bias = random_floats((H + 2 * G) * D, 21), q_norm = random_floats(D, 22),
                           k_norm = random_floats(D, 23);
  OnDevice<float> bias_device(*device_, bias), q_device(*device_, q_norm),
      k_device(*device_, k_norm);
  HeadTransform transform, transform_device;
  if (window != 0) {
    transform = {bias.data(), q_norm.data(), k_norm.data(), 1e-6f};
    transform_device = {bias_device.data(), q_device.data(), k_device.data(), 1e-6f};
  }
  constexpr int64_t kPages = 40;
  const size_t bytes = static_cast<size_t>(kPages * layout.page_bytes());
  OnDevice<uint8_t> memory(*device_, std::vector<uint8_t>(bytes, 0xFF));  // NaN in bf16
  Buffer ref_memory(bytes);
  const KvCache cache{layout, reinterpret_cast<std::byte*>(memory.data())},
      ref_cache{layout, ref_memory.data()};
  std::vector<std::vector<int32_t>> pages(3);
  for (int32_t p = 0; p < kPages; ++p) pages[static_cast<size_t>(p % 3)].push_back(kPages - 1 - p);
  const auto step_arrays = device_->make_step({1024, 8, 64}, H, layout);
  context_.step = step_arrays.get();
  std::vector<int64_t> context_tokens = {0, 0, 0};
  const int64_t steps[][3] = {{1, 70, 16},   {37, 1, 0}, {1, 1, 49}, {90, 1, 1},
                              {600, 300, 1}, {1, 1, 1},  {1, 1, 1}};
  for (const auto& step : steps) {
    Batch batch;
    std::vector<int32_t> positions;
    for (size_t s = 0; s < 3; ++s) {
      if (step[s] == 0) continue;
      for (int64_t i = 0; i < step[s]; ++i)
        positions.push_back(static_cast<int32_t>(context_tokens[s] + i));
      context_tokens[s] += step[s];
      batch.sequences.push_back({batch.T, step[s], context_tokens[s], pages[s].data()});
      batch.T += step[s];
    }
    batch.positions = positions.data();
    batch.tokens = positions.data();
    step_arrays->stage(batch, cache, H);
    const int64_t ld = (H + 2 * G) * D;
    const std::vector<float> x = random_floats(batch.T * ld, static_cast<uint64_t>(batch.T), 0.5);
    const std::vector<float> cos_sin = random_floats(batch.T * D, 9);
    OnDevice<float> angles(*device_, cos_sin);
    for (const int64_t layer : {0, 1}) {
      std::vector<float> qkv_ref = x, out_ref(static_cast<size_t>(batch.T * H * D));
      OnDevice<float> qkv(*device_, x), out(*device_, std::vector<float>(out_ref.size(), NAN));
      cuda().rope_append(context_, qkv.data(), transform_device, batch, H, angles.data(), cache,
                         layer);
      ref().rope_append(context_, qkv_ref.data(), transform, batch, H, cos_sin.data(), ref_cache,
                        layer);
      cuda().attention(context_, qkv.data(), batch, H, cache, layer, nullptr, out.data());
      ref().attention(context_, qkv_ref.data(), batch, H, ref_cache, layer, nullptr,
                      out_ref.data());
      const std::vector<float> q = qkv.values(), result = out.values();
      for (int64_t t = 0; t < batch.T; ++t) {
        for (int64_t i = t * ld; i < t * ld + H * D; ++i) {
          ASSERT_NEAR(q[i], qkv_ref[i], 1e-5 * std::fabs(qkv_ref[i]) + 1e-5) << "q of token " << t;
        }
      }
      // A key on the edge of two bf16 numbers may be rounded either way.
      for (size_t i = 0; i < result.size(); ++i) {
        ASSERT_NEAR(result[i], out_ref[i], 2e-3 * (1 + std::fabs(out_ref[i])))
            << "T " << batch.T << " i " << i;
      }
    }
  }
}

TEST_F(CudaOps, Attention) {
  check_attention(9, 3, 64, 0);
  check_attention(32, 8, 128, 0);
  check_attention(4, 4, 128, 0);
  check_attention(16, 1, 64, 0);
  check_attention(8, 1, 128, 0);
}

TEST_F(CudaOps, AttentionInAWindowWithBiasAndHeadNorms) {
  for (const int64_t window : {1, 5, 63, 64, 65, 100, 300}) check_attention(9, 3, 64, window);
}

TEST_F(CudaOps, ArgmaxTakesTheLowestOfEqualsAndSeesNaN) {
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

}  // namespace
}  // namespace tandem
