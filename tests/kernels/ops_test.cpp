// The ops besides linear: each fast set against ref, at odd shapes and ragged batches.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/random_weight.h"
#include "kernels/table.h"

namespace tandem {
namespace {

class FastOps : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const auto isas = runnable_isas();
    if (std::find(isas.begin(), isas.end(), GetParam()) == isas.end()) {
      GTEST_SKIP() << "this processor lacks " << GetParam();
    }
  }
  const OpSet& fast() { return find_ops(GetParam()); }
  const OpSet& ref() { return find_ops("ref"); }
  ThreadPool pool_{2};
  Context context_{&pool_};
};

TEST_P(FastOps, QuantizeGivesTheSameCodes) {
  for (const ActType type :
       {ActType::int8_block, ActType::int8_token, ActType::fp8_token, ActType::int8_outlier,
        ActType::fp8_block, ActType::fp8_static, ActType::int8_static}) {
    for (const int64_t K : {1, 31, 32, 33, 172, 576}) {
      std::vector<float> x = random_inputs(type, 9 * K, 1);
      std::fill_n(x.begin(), K, 0.0f);  // a row of zeros
      OwnedActivations a(type, 9, K), b(type, 9, K);
      fast().quantize(context_, x.data(), K, a.view);
      ref().quantize(context_, x.data(), K, b.view);
      EXPECT_EQ(a.codes, b.codes) << "K " << K;
      EXPECT_EQ(a.scales, b.scales) << "K " << K;
      if (is_fp8(type)) continue;  // has no sums
      EXPECT_EQ(a.sums, b.sums) << "K " << K;
    }
  }
}

TEST_P(FastOps, NonFiniteActivationsAreSeen) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> x = random_floats(64, 1);
    x[40] = bad;
    OwnedActivations act(ActType::int8_block, 1, 64);
    fast().quantize(context_, x.data(), 64, act.view);
    EXPECT_FALSE(std::isnan(act.scales[0]));
    EXPECT_TRUE(std::isnan(act.scales[1]));
  }
}

// Each token's outliers are its own: 16 bits of them, while the rest keeps the scale it has without.
TEST_P(FastOps, OutliersStandApart) {
  constexpr int64_t K = 64;
  std::vector<float> x(3 * K, 0.5f);
  x[3] = 5.75f, x[K + 3] = 6.0f, x[K + 9] = -700.0f, x[2 * K + 3] = INFINITY;
  OwnedActivations act(ActType::int8_outlier, 3, K);
  fast().quantize(context_, x.data(), K, act.view);
  EXPECT_EQ(act.scales[0], 5.75f / 127);
  EXPECT_EQ(act.scales[3], 0.0f) << "the first token has no outlier";
  EXPECT_EQ(act.value(0, 3), 127 * double{act.scales[0]});
  EXPECT_EQ(act.scales[1], 0.5f / 127);
  EXPECT_EQ(act.outlier_code(1, 9), -kLargestOutlierCode);
  EXPECT_EQ(act.outlier_code(1, 3), 278);
  EXPECT_NEAR(act.value(1, 3), 6.0, 350.0 / kLargestOutlierCode);
  // Kernels negate bytes, which -128 does not bear.
  EXPECT_EQ(std::ranges::count(act.codes, -128), 0);
  EXPECT_EQ(act.outlier_code(1, 4), 0);
  EXPECT_TRUE(std::isnan(act.scales[5]));
  double sum = 0;
  for (int64_t k = 0; k < K; ++k) sum += act.value(1, k);
  EXPECT_NEAR(act.sums[1], sum, 1e-4);
}

// 127 / max|x| would overflow: such a block is zero, not whatever infinity converts to.
TEST_P(FastOps, TinyActivationsBecomeZeroCodes) {
  for (const float tiny : {1e-37f, 1e-40f}) {
    const std::vector<float> x(64, tiny);
    OwnedActivations a(ActType::int8_block, 1, 64), b(ActType::int8_block, 1, 64);
    fast().quantize(context_, x.data(), 64, a.view);
    ref().quantize(context_, x.data(), 64, b.view);
    EXPECT_EQ(a.codes, std::vector<int8_t>(64, 0));
    EXPECT_EQ(a.codes, b.codes);
    EXPECT_EQ(a.sums, b.sums);
  }
}

// A key or value that is not finite must reach the output of the queries that see it, in every cache type.
TEST_P(FastOps, NonFiniteKeysAndValuesAreSeen) {
  constexpr int64_t H = 2, D = 16, T = 20, ld = 4 * D;  // one kv head: q, q, k, v
  const std::vector<float> cos_sin = [] {
    std::vector<float> angles(T * D, 0.0f);
    for (int64_t t = 0; t < T; ++t) std::fill_n(&angles[t * D], D / 2, 1.0f);
    return angles;
  }();
  const int32_t pages[] = {0};
  Batch batch;
  batch.T = T;
  batch.sequences.push_back({0, T, T, pages});
  for (const OpSet* set : {&fast(), &ref()}) {
    for (const KvType type : {KvType::f32, KvType::bf16, KvType::int8}) {
      for (const int64_t column : {2 * D + 3, 3 * D + 3}) {
        for (const float bad : {NAN, INFINITY}) {
          SCOPED_TRACE(fmt::format("{} {} column {} {}", set->isa, kv_type_name(type), column, bad));
          const KvLayout layout{type, 1, 1, D};
          Buffer memory(static_cast<size_t>(layout.page_bytes()));
          std::vector<float> qkv = random_floats(T * ld, 1), out(T * H * D);
          qkv[5 * ld + column] = bad;
          for (int64_t t = 0; t < T; ++t) qkv[t * ld + 3] = 1;  // so that an infinite key scores high
          std::vector<float> scratch(static_cast<size_t>(2 * attention_scratch_floats(H, 1, D)));
          const KvCache cache{layout, memory.data()};
          set->rope_append(context_, qkv.data(), {}, batch, H, cos_sin.data(), cache, 0);
          set->attention(context_, qkv.data(), batch, H, cache, 0, scratch.data(), out.data());
          EXPECT_FALSE(std::isfinite(out[(T - 1) * H * D + 3]));
        }
      }
    }
  }
}

TEST_P(FastOps, RmsNorm) {
  for (const int64_t C : {8, 17, 64, 576}) {
    const std::vector<float> x = random_floats(11 * C, 2, 3.0), weight = random_floats(C, 3);
    OwnedActivations a(ActType::f32, 11, C), b(ActType::f32, 11, C);
    fast().rms_norm(context_, x.data(), 11, C, weight.data(), 1e-5f, a.view);
    ref().rms_norm(context_, x.data(), 11, C, weight.data(), 1e-5f, b.view);
    for (size_t i = 0; i < a.f32.size(); ++i) {
      ASSERT_NEAR(a.f32[i], b.f32[i], 2e-6 * std::fabs(b.f32[i]) + 1e-7) << "C " << C << " i " << i;
    }
  }
}

TEST_P(FastOps, ActMul) {
  for (const int64_t F : {1, 15, 172, 1536}) {
    std::vector<float> x = random_floats(5 * 2 * F, 4, 8.0);
    x[0] = -200;  // exp would overflow
    OwnedActivations a(ActType::f32, 5, F), b(ActType::f32, 5, F);
    fast().act_mul(context_, x.data(), 5, F, a.view);
    ref().act_mul(context_, x.data(), 5, F, b.view);
    for (size_t i = 0; i < a.f32.size(); ++i) {
      ASSERT_NEAR(a.f32[i], b.f32[i], 2e-6 * std::fabs(b.f32[i]) + 1e-12) << "F " << F << " i " << i;
    }
  }
}

struct HeadShape {
  int64_t H, G, D;
};

// Appends and attends three ragged sequences in several steps on scattered pages, with both sets.
// A window also brings bias and head norms.
void check_attention(const OpSet& fast, const Context& context, const HeadShape& shape, KvType type,
                     int64_t window = 0) {
  SCOPED_TRACE(fmt::format("H {} G {} D {} {} window {}", shape.H, shape.G, shape.D, kv_type_name(type),
                           window));
  const auto [H, G, D] = shape;
  const OpSet& ref = find_ops("ref");
  const KvLayout layout{type, 2, G, D, window};
  const std::vector<float> bias = random_floats((H + 2 * G) * D, 21), q_norm = random_floats(D, 22),
                           k_norm = random_floats(D, 23);
  HeadTransform transform;
  if (window != 0) transform = {bias.data(), q_norm.data(), k_norm.data(), 1e-6f};
  constexpr int64_t kPages = 16;
  Buffer fast_memory(static_cast<size_t>(kPages * layout.page_bytes()));
  Buffer ref_memory(fast_memory.size_bytes());
  // Stale bytes beyond a sequence's end must not matter: fill with values that are finite in any type.
  std::memset(fast_memory.data(), 0x3F, fast_memory.size_bytes());
  std::memset(ref_memory.data(), 0x3F, ref_memory.size_bytes());
  const KvCache fast_cache{layout, fast_memory.data()}, ref_cache{layout, ref_memory.data()};
  const std::vector<std::vector<int32_t>> pages = {{3, 9, 1, 12}, {0, 15, 7}, {5, 2, 14}};
  std::vector<int64_t> context_tokens = {0, 0, 0};
  const int64_t steps[][3] = {{1, 70, 16}, {37, 1, 0}, {1, 1, 49}, {90, 1, 1}};
  for (const auto& step : steps) {
    Batch batch;
    for (size_t s = 0; s < 3; ++s) {
      if (step[s] == 0) continue;
      context_tokens[s] += step[s];
      batch.sequences.push_back({batch.T, step[s], context_tokens[s], pages[s].data()});
      batch.T += step[s];
    }
    const int64_t ld = (H + 2 * G) * D;
    std::vector<float> qkv = random_floats(batch.T * ld, static_cast<uint64_t>(batch.T), 0.5), qkv_ref = qkv;
    std::vector<float> cos_sin = random_floats(batch.T * D, 9);
    std::vector<float> out(static_cast<size_t>(batch.T * H * D)), out_ref(out.size());
    std::vector<float> scratch(static_cast<size_t>(2 * attention_scratch_floats(H, G, D)));
    for (const int64_t layer : {0, 1}) {
      fast.rope_append(context, qkv.data(), transform, batch, H, cos_sin.data(), fast_cache, layer);
      ref.rope_append(context, qkv_ref.data(), transform, batch, H, cos_sin.data(), ref_cache, layer);
      for (size_t i = 0; i < qkv.size(); ++i) ASSERT_NEAR(qkv[i], qkv_ref[i], 1e-5 * std::fabs(qkv_ref[i]) + 1e-5);
      // The caches hold the same but for the last bit of a rounding: copy, so that attention alone is compared.
      std::memcpy(fast_memory.data(), ref_memory.data(), ref_memory.size_bytes());
      qkv = qkv_ref;
      fast.attention(context, qkv.data(), batch, H, fast_cache, layer, scratch.data(), out.data());
      ref.attention(context, qkv_ref.data(), batch, H, ref_cache, layer, nullptr, out_ref.data());
      for (size_t i = 0; i < out.size(); ++i) {
        ASSERT_NEAR(out[i], out_ref[i], 2e-5 * (1 + std::fabs(out_ref[i]))) << "layer " << layer << " i " << i;
      }
    }
  }
}

TEST_P(FastOps, Attention) {
  for (const KvType type : {KvType::f32, KvType::bf16, KvType::int8}) {
    for (const HeadShape& shape :
         {HeadShape{9, 3, 64}, HeadShape{8, 4, 8}, HeadShape{4, 4, 128}, HeadShape{16, 1, 32}, HeadShape{2, 1, 80},
          HeadShape{3, 3, 10}}) {
      check_attention(fast(), context_, shape, type);
    }
  }
}

TEST_P(FastOps, AttentionInAWindowWithBiasAndHeadNorms) {
  // Shorter than a page, a page, and across pages: a block's rows then begin in different ones.
  for (const int64_t window : {1, 5, 63, 64, 65, 100}) {
    for (const HeadShape& shape : {HeadShape{9, 3, 64}, HeadShape{3, 1, 10}, HeadShape{16, 1, 32}}) {
      check_attention(fast(), context_, shape, KvType::f32, window);
      check_attention(fast(), context_, shape, KvType::int8, window);
    }
  }
}

TEST_P(FastOps, CacheOfBf16AndInt8HoldsTheSameBytesAsRef) {
  for (const KvType type : {KvType::bf16, KvType::int8}) {
    const KvLayout layout{type, 1, 2, 64};
    Buffer a(static_cast<size_t>(2 * layout.page_bytes())), b(a.size_bytes());
    const KvCache cache_a{layout, a.data()}, cache_b{layout, b.data()};
    const int32_t pages[] = {1, 0};
    Batch batch;
    batch.T = 80;
    batch.sequences.push_back({0, 80, 80, pages});
    std::vector<float> qkv = random_floats(80 * 8 * 64, 11), qkv_ref = qkv;
    // Rotation by zero angles keeps the floats equal, so the stored bytes must be.
    std::vector<float> cos_sin(80 * 64, 0.0f);
    for (int64_t t = 0; t < 80; ++t) std::fill_n(&cos_sin[t * 64], 32, 1.0f);
    fast().rope_append(context_, qkv.data(), {}, batch, 4, cos_sin.data(), cache_a, 0);
    ref().rope_append(context_, qkv_ref.data(), {}, batch, 4, cos_sin.data(), cache_b, 0);
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size_bytes()), 0) << kv_type_name(type);
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, FastOps, testing::Values("avx2", "avx512"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace tandem
