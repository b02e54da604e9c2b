// The narrow cache types as ref defines them, and the order of their elements on a GPU.
#include "kernels/ref/kv_codes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/cuda/kv_fragments.h"
#include "kernels/random_weight.h"
#include "kernels/table.h"

namespace tandem {
namespace {

constexpr KvType kNarrow[] = {KvType::int8, KvType::fp8, KvType::int4};

std::vector<float> round_trip(KvType type, const std::vector<float>& x) {
  std::vector<uint8_t> codes(x.size());
  const uint32_t word = narrow_head(type, x.data(), static_cast<int64_t>(x.size()), codes.data());
  std::vector<float> result;
  for (const uint8_t code : codes) result.push_back(widen_code(type, code, word));
  return result;
}

TEST(KvCodes, AreWithinHalfAStep) {
  for (const uint64_t seed : {1, 2, 3, 4, 5}) {
    std::vector<float> x = random_floats(128, seed, 3.0);
    x[7] = 40;  // a channel that stands out
    const auto [low, high] = std::minmax_element(x.begin(), x.end());
    const float max_abs = std::max(*high, -*low);
    for (const KvType type : kNarrow) {
      const std::vector<float> y = round_trip(type, x);
      for (size_t d = 0; d < x.size(); ++d) {
        // fp8: half of 2^-3 of the number, or of the smallest step; int4: half a step, and what
        // scale and minimum lose in bf16.
        const double allowed =
            type == KvType::int8 ? max_abs / 127 * 0.5001
            : type == KvType::fp8
                ? std::max(std::fabs(x[d]) / 16.0, max_abs / 448.0 / 1024) * 1.0001
                : (*high - *low) / 15.0 * (0.5 + 15.0 / 512) + std::fabs(*low) / 512.0;
        EXPECT_NEAR(y[d], x[d], allowed) << kv_type_name(type) << " " << d;
      }
    }
  }
}

TEST(KvCodes, ZerosEqualsAndTinyHeadsAreExactOrZero) {
  for (const KvType type : kNarrow) {
    EXPECT_EQ(round_trip(type, std::vector<float>(64, 0.0f)), std::vector<float>(64, 0.0f));
    for (const float y : round_trip(type, std::vector<float>(64, -3.25f)))
      EXPECT_NEAR(y, -3.25f, 1e-6);
    for (const float y : round_trip(type, std::vector<float>(64, 1e-38f)))
      EXPECT_NEAR(y, 0.0f, 1e-37f);
  }
}

TEST(KvCodes, WhatIsNotFiniteIsSeen) {
  for (const KvType type : kNarrow) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      std::vector<float> x(64, 1.0f);
      x[63] = bad;
      for (const float y : round_trip(type, x)) EXPECT_TRUE(std::isnan(y)) << kv_type_name(type);
    }
  }
}

TEST(KvCodes, HadamardKeepsProductsAndUndoesItself) {
  for (const int64_t D : {2, 64, 128}) {
    const std::vector<float> q = random_floats(D, 1), k = random_floats(D, 2);
    std::vector<float> a = q, b = k;
    rotate_hadamard(a.data(), D);
    rotate_hadamard(b.data(), D);
    EXPECT_NEAR(std::inner_product(a.begin(), a.end(), b.begin(), 0.0),
                std::inner_product(q.begin(), q.end(), k.begin(), 0.0), 1e-4);
    EXPECT_NE(a, q);
    rotate_hadamard(a.data(), D);
    for (int64_t d = 0; d < D; ++d)
      EXPECT_NEAR(a[static_cast<size_t>(d)], q[static_cast<size_t>(d)], 1e-5);
  }
  std::vector<float> x = {1, 2, 3};
  rotate_hadamard(x.data(), 3);  // not a power of two: left alone
  EXPECT_EQ(x, (std::vector<float>{1, 2, 3}));
}

// Every element of a plane has bits of its own, and they fill it.
TEST(KvCodes, FragmentsFillAPlane) {
  for (const int bits : {16, 8, 4}) {
    for (const int64_t D : {64, 128}) {
      for (const auto& place : {k_fragment_bit, v_fragment_bit}) {
        std::vector<bool> taken(static_cast<size_t>(kPageTokens * D));
        for (int64_t token = 0; token < kPageTokens; ++token) {
          for (int64_t d = 0; d < D; ++d) {
            const int64_t bit = place(bits, D, token, d);
            ASSERT_EQ(bit % bits, 0);
            ASSERT_FALSE(taken.at(static_cast<size_t>(bit / bits)))
                << bits << " " << token << " " << d;
            taken[static_cast<size_t>(bit / bits)] = true;
          }
        }
      }
    }
  }
}

// ref's attention over each type against the same over f32, for an ordinary sequence.
TEST(KvCodes, RefAttendsOverEveryType) {
  constexpr int64_t H = 4, G = 2, T = 130, ld = (H + 2 * G) * 64;
  const OpSet& ref = find_ops("ref");
  ThreadPool pool(2);
  const Context context{&pool};
  std::vector<float> cos_sin(T * 64);
  for (int64_t i = 0; i < T * 32; ++i) {
    const double angle = static_cast<double>(i / 32) * std::pow(0.7, static_cast<double>(i % 32));
    cos_sin[static_cast<size_t>(i / 32 * 64 + i % 32)] = static_cast<float>(std::cos(angle));
    cos_sin[static_cast<size_t>(i / 32 * 64 + 32 + i % 32)] = static_cast<float>(std::sin(angle));
  }
  const int32_t pages[] = {1, 2, 0};
  Batch batch;
  batch.T = T;
  batch.sequences.push_back({0, T, T, pages});
  const auto run = [&](KvType type) {
    const KvLayout layout{type, 1, G, 64};
    Buffer memory(static_cast<size_t>(3 * layout.page_bytes()));
    const KvCache cache{layout, memory.data()};
    std::vector<float> qkv = random_floats(T * ld, 8), out(T * H * 64);
    ref.rope_append(context, qkv.data(), {}, batch, H, cos_sin.data(), cache, 0);
    ref.attention(context, qkv.data(), batch, H, cache, 0, nullptr, out.data());
    return out;
  };
  const std::vector<float> exact = run(KvType::f32);
  const auto error = [&](KvType type) {
    const std::vector<float> out = run(type);
    double sum = 0, norm = 0;
    for (size_t i = 0; i < out.size(); ++i) {
      sum += std::pow(out[i] - exact[i], 2), norm += std::pow(exact[i], 2);
    }
    return std::sqrt(sum / norm);
  };
  EXPECT_LT(error(KvType::bf16), 0.004);
  EXPECT_LT(error(KvType::int8), 0.015);
  EXPECT_LT(error(KvType::fp8), 0.05);
  EXPECT_LT(error(KvType::int4), 0.16);
  EXPECT_GT(error(KvType::int4), error(KvType::fp8));
}

}  // namespace
}  // namespace tandem
