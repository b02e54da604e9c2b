// Every linear row of the table, at odd shapes, checked twice: against scalar code with the same
// (quantized) activations, and that against fp32 activations within half a quantization step a channel.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/random_weight.h"
#include "kernels/table.h"

namespace tandem {
namespace {

struct Shape {
  int64_t T, N, K;
  const char* hazard;
};

constexpr Shape kShapes[] = {
    {1, 16, 32, "one tile"},          {1, 1, 32, "one row"},
    {1, 576, 576, "decode"},          {2, 17, 64, "a lane beyond a panel"},
    {3, 15, 96, "tokens of 2 + 1"},   {7, 33, 128, "tokens of 4 + 2 + 1"},
    {8, 7, 1536, "deep, few rows"},   {9, 48, 192, "a token beyond a tile"},
    {15, 40, 320, "one less than two tiles"}, {33, 250, 64, "tails everywhere"},
    {0, 32, 64, "no tokens"},         {1, 50, 512, "super-blocks"},
    {7, 17, 256, "one super-block"},  {17, 33, 768, "more tokens than are summed alone"},
};

std::vector<Encoding> encodings_of(Packing packing) {
  switch (packing) {
    case Packing::q4_1: return {kQ4_1};
    case Packing::q8_0: return {kQ8_0};
    case Packing::int8_channel:
      return {int8_channel(ScaleType::bf16), int8_channel(ScaleType::f32), int8_channel(ScaleType::f16)};
    case Packing::llm_int8: return {kLlmInt8};
    case Packing::fp8_channel: return {fp8_channel(ScaleType::bf16), fp8_channel(ScaleType::f32)};
    case Packing::fp8_weight: return {fp8_weight(ScaleType::bf16)};
    case Packing::fp8_block: return {fp8_block(ScaleType::f32), fp8_block(ScaleType::bf16)};
    case Packing::fp8_static: return {fp8_static(ScaleType::f32), fp8_static(ScaleType::bf16)};
    case Packing::int8_static: return {int8_static(ScaleType::f32), int8_static(ScaleType::bf16)};
    case Packing::codebook: return {codebook(64), codebook(32)};
    case Packing::nf4: return {kNF4, {Packing::nf4, ScaleType::f32, 32}};
    case Packing::fp4: return {kFP4};
    case Packing::int4_group:
      return {int4_group(32, ScaleType::bf16), int4_group(64, ScaleType::bf16), int4_group(32, ScaleType::f16),
              int4_group(64, ScaleType::f32)};
    case Packing::q4_0: return {kQ4_0};
    case Packing::q5_0: return {kQ5_0};
    case Packing::q5_1: return {kQ5_1};
    case Packing::iq4_nl: return {kIQ4_NL};
    case Packing::q2_k: return {kQ2_K};
    case Packing::q3_k: return {kQ3_K};
    case Packing::q4_k: return {kQ4_K};
    case Packing::q5_k: return {kQ5_K};
    case Packing::q6_k: return {kQ6_K};
    case Packing::int8_channel_24: return {int8_channel_24(ScaleType::bf16), int8_channel_24(ScaleType::f32)};
    case Packing::fp8_channel_24: return {fp8_channel_24(ScaleType::bf16), fp8_channel_24(ScaleType::f32)};
    case Packing::int4_group_24: return {int4_group_24(32, ScaleType::bf16), int4_group_24(64, ScaleType::f32)};
    case Packing::int2_zero: return {int_zero(2, 32, ScaleType::f16), int_zero(2, 64, ScaleType::f32)};
    case Packing::int3_zero: return {int_zero(3, 32, ScaleType::f16), int_zero(3, 64, ScaleType::bf16)};
    case Packing::int4_zero:
      return {int_zero(4, 32, ScaleType::f16), int_zero(4, 64, ScaleType::bf16), int_zero(4, 64, ScaleType::f32)};
    case Packing::int8_zero:
      return {int_zero(8, 32, ScaleType::f16), int_zero(8, 64, ScaleType::bf16), int_zero(8, 64, ScaleType::f32)};
    default: return {Encoding{packing}};
  }
}

void check_case(const LinearKernel& kernel, const Encoding& encoding, const Shape& shape, bool accumulate) {
  SCOPED_TRACE(fmt::format("{} {} {}: T {} N {} K {}", kernel.name, encoding.name(), shape.hazard, shape.T,
                           shape.N, shape.K));
  ThreadPool pool(2);
  Arena arena;
  const Context context{&pool};
  // Two stacked parts, so that a panel may straddle them.
  const int64_t first = shape.N / 3;
  std::vector<RandomWeight> owned;
  owned.reserve(2);
  if (first > 0) owned.emplace_back(encoding, first, shape.K, 1);
  owned.emplace_back(encoding, shape.N - first, shape.K, 2);
  std::vector<Weight> parts;
  for (const auto& part : owned) parts.push_back(part.weight);
  PackedWeight packed = kernel.prepack(context, parts, arena);
  packed.kernel = &kernel;
  ASSERT_EQ(packed.N, shape.N);

  const std::vector<float> x = random_inputs(kernel.act_type, shape.T * shape.K, 3);
  OwnedActivations act(kernel.act_type, shape.T, shape.K);
  find_ops("ref").quantize(context, x.data(), shape.K, act.view);
  const int64_t ldy = shape.N + 3;
  std::vector<float> y(static_cast<size_t>(shape.T * ldy), 0.5f);
  kernel.run(context, packed, act.view, y.data(), ldy, accumulate);

  std::vector<float> row(static_cast<size_t>(shape.K)), packed_row(row.size());
  for (int64_t n = 0; n < shape.N; ++n) {
    const Weight& part = n < first ? parts[0] : parts.back();
    decode_row(part, n < first ? n : n - first, row.data());
    kernel.decode_row(packed, n, packed_row.data());
    ASSERT_EQ(row, packed_row) << "row " << n;
    for (int64_t t = 0; t < shape.T; ++t) {
      double same_codes = 0, fp32 = 0, magnitude = 0, bound = 0;
      for (int64_t k = 0; k < shape.K; ++k) {
        const double w = row[k], value = act.value(t, k), exact = x[t * shape.K + k];
        same_codes += w * value;
        fp32 += w * exact;
        magnitude += std::fabs(w * value);
        bound += std::fabs(w) * (act.step(t, k) * 0.5001 + std::fabs(exact) * 1e-6);
      }
      const double start = accumulate ? 0.5 : 0.0;
      ASSERT_NEAR(y[t * ldy + n], start + same_codes, 1e-5 * magnitude + 1e-6) << "t " << t << " n " << n;
      ASSERT_NEAR(same_codes, fp32, bound + 1e-9) << "t " << t << " n " << n;
    }
  }
  for (int64_t t = 0; t < shape.T; ++t) {
    for (int64_t n = shape.N; n < ldy; ++n) ASSERT_EQ(y[t * ldy + n], 0.5f) << "written beyond N";
  }
}

std::vector<LinearKernel> code_rows() {
  std::vector<LinearKernel> rows;
  for (const LinearKernel& kernel : linear_kernels()) {
    if (Encoding{kernel.packing}.has_integer_codes()) rows.push_back(kernel);
  }
  return rows;
}

class LinearRows : public testing::TestWithParam<LinearKernel> {};
class CodeRows : public testing::TestWithParam<LinearKernel> {};

TEST_P(LinearRows, AgreesWithScalarCode) {
  const LinearKernel& kernel = GetParam();
  const auto isas = runnable_isas();
  if (std::find(isas.begin(), isas.end(), kernel.isa) == isas.end()) {
    GTEST_SKIP() << "this processor lacks " << kernel.isa;
  }
  for (const Encoding& encoding : encodings_of(kernel.packing)) {
    for (const Shape& shape : kShapes) {
      if (shape.K % encoding.block() != 0) continue;
      check_case(kernel, encoding, shape, false);
      check_case(kernel, encoding, shape, true);
    }
    // Widths that no block divides, where the encoding has no blocks.
    const int64_t odd = encoding.is_sparse() ? 168 : 172;
    if (encoding.block() <= 8) check_case(kernel, encoding, {5, 19, odd, "K of stories260K"}, false);
  }
}

// A token's result is the same, bit for bit, whatever tokens stand beside it and however many threads run:
// a sequence gives the same text alone and in a batch.
TEST_P(LinearRows, TokensDoNotDependOnTheirNeighbours) {
  const LinearKernel& kernel = GetParam();
  const auto isas = runnable_isas();
  if (std::find(isas.begin(), isas.end(), kernel.isa) == isas.end()) GTEST_SKIP() << "lacks " << kernel.isa;
  constexpr int64_t kMost = 33, N = 250;
  const Encoding encoding = encodings_of(kernel.packing).front();
  const int64_t K = encoding.is_super() ? 256 : 192;
  ThreadPool one(1), two(2);
  Arena arena;
  RandomWeight owned(encoding, N, K, 1);
  PackedWeight packed = kernel.prepack(Context{&two}, {owned.weight}, arena);
  packed.kernel = &kernel;
  const std::vector<float> x = random_inputs(kernel.act_type, kMost * K, 3);
  const auto run = [&](ThreadPool& pool, int64_t first, int64_t T, bool accumulate) {
    OwnedActivations act(kernel.act_type, T, K);
    find_ops("ref").quantize(Context{&pool}, x.data() + first * K, K, act.view);
    std::vector<float> y(static_cast<size_t>(T * N), 0.3f);
    kernel.run(Context{&pool}, packed, act.view, y.data(), N, accumulate);
    return y;
  };
  for (const bool accumulate : {false, true}) {
    const std::vector<float> together = run(two, 0, kMost, accumulate);
    for (const int64_t T : {1, 2, 3, 4, 5, 7, 16}) {
      for (int64_t first = 0; first + T <= kMost; first += T) {
        const std::vector<float> few = run(first % 2 == 0 ? one : two, first, T, accumulate);
        ASSERT_TRUE(std::equal(few.begin(), few.end(), together.begin() + first * N))
            << kernel.name << " tokens " << first << " to " << first + T;
      }
    }
  }
}

// GPTQ's act-order: the stored columns are the input channels in another order.
TEST_P(CodeRows, ColumnsMeetTheirChannels) {
  const LinearKernel& kernel = GetParam();
  const auto isas = runnable_isas();
  if (std::find(isas.begin(), isas.end(), kernel.isa) == isas.end()) GTEST_SKIP() << "lacks " << kernel.isa;
  if (std::string_view(kernel.isa) == "ref") GTEST_SKIP() << "ref decodes in the order of the channels";
  const Encoding encoding = encodings_of(kernel.packing).front();
  if (encoding.is_super()) GTEST_SKIP() << "no file of super-blocks has columns";
  constexpr int64_t T = 5, N = 37, K = 192;
  std::vector<int32_t> columns(K);
  for (int32_t k = 0; k < K; ++k) columns[static_cast<size_t>(k)] = (k * 35 + 11) % K;
  RandomWeight owned(encoding, N, K, 1);
  owned.weight.columns = columns.data();
  ThreadPool pool(2);
  Arena arena;
  const Context context{&pool};
  PackedWeight packed = kernel.prepack(context, {owned.weight}, arena);
  packed.kernel = &kernel;
  const std::vector<float> x = random_inputs(kernel.act_type, T * K, 3);
  OwnedActivations act(kernel.act_type, T, K), same(kernel.act_type, T, K);
  act.view.columns = same.view.columns = packed.columns;
  find_ops("ref").quantize(context, x.data(), K, act.view);
  find_ops(kernel.isa).quantize(context, x.data(), K, same.view);
  ASSERT_EQ(act.codes, same.codes);
  std::vector<float> y(T * N), row(K), packed_row(K);
  kernel.run(context, packed, act.view, y.data(), N, false);
  for (int64_t n = 0; n < N; ++n) {
    decode_row(owned.weight, n, row.data());
    kernel.decode_row(packed, n, packed_row.data());
    ASSERT_EQ(row, packed_row) << "row " << n;
    for (int64_t t = 0; t < T; ++t) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < K; ++k) {
        const double product = act.value(t, k) * row[static_cast<size_t>(columns[static_cast<size_t>(k)])];
        sum += product;
        magnitude += std::fabs(product);
      }
      ASSERT_NEAR(y[static_cast<size_t>(t * N + n)], sum, 1e-5 * magnitude + 1e-6) << "t " << t << " n " << n;
    }
  }
}

// The largest codes at full depth: saturation in an intermediate sum would show here.
TEST_P(CodeRows, ExtremeCodesDoNotSaturate) {
  const LinearKernel& kernel = GetParam();
  const auto isas = runnable_isas();
  if (std::find(isas.begin(), isas.end(), kernel.isa) == isas.end()) GTEST_SKIP() << "lacks " << kernel.isa;
  ThreadPool pool(1);
  Arena arena;
  const Context context{&pool};
  const Encoding encoding = encodings_of(kernel.packing).front();
  for (const int byte : {0xFF, 0x00, 0x80, 0x7F, 0x88}) {
    RandomWeight owned(encoding, 16, 1536, 5);
    const BlockFields fields = block_fields(encoding.packing);
    const auto within = [](size_t at, size_t begin) { return at >= begin && at < begin + 2; };
    for (size_t i = 0; i < owned.data.size(); ++i) {
      const size_t at = fields.bytes == 0 ? 0 : i % fields.bytes;
      const bool is_f16 = fields.bytes != 0 && (within(at, fields.scale) ||
                                                (fields.min >= 0 && within(at, static_cast<size_t>(fields.min))));
      if (!is_f16) owned.data[i] = static_cast<std::byte>(byte);
    }
    PackedWeight packed = kernel.prepack(context, {owned.weight}, arena);
    packed.kernel = &kernel;
    for (const float sign : {1.0f, -1.0f}) {
      const std::vector<float> x(1536, sign * 3.0f);
      OwnedActivations act(kernel.act_type, 1, 1536);
      find_ops("ref").quantize(context, x.data(), 1536, act.view);
      std::vector<float> y(16), row(1536);
      kernel.run(context, packed, act.view, y.data(), 16, false);
      for (int64_t n = 0; n < 16; ++n) {
        decode_row(owned.weight, n, row.data());
        double expected = 0, magnitude = 0;
        for (int64_t k = 0; k < 1536; ++k) {
          expected += row[k] * act.value(0, k);
          magnitude += std::fabs(row[k] * act.value(0, k));
        }
        // code * scale and min nearly cancel when the code is near zero point: allow for their magnitude.
        const double slack = 1e-5 * magnitude + 1e-6 * 1536 * 3 * 2;
        EXPECT_NEAR(y[n], expected, slack) << kernel.name << " byte " << byte << " n " << n;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Table, LinearRows, testing::ValuesIn(linear_kernels().begin(), linear_kernels().end()),
                         [](const auto& param) { return std::string(param.param.name); });

INSTANTIATE_TEST_SUITE_P(Table, CodeRows, testing::ValuesIn(code_rows()),
                         [](const auto& param) { return std::string(param.param.name); });

TEST_P(CodeRows, RefusesAWidthThatOverflowsItsSums) {
  const LinearKernel& kernel = GetParam();
  const auto isas = runnable_isas();
  if (std::find(isas.begin(), isas.end(), kernel.isa) == isas.end()) GTEST_SKIP() << "lacks " << kernel.isa;
  if (kernel.packing != Packing::int8_channel || kernel.act_type == ActType::f32) return;
  ThreadPool pool(1);
  Arena arena;
  const RandomWeight owned(int8_channel(ScaleType::f32), 1, 65537, 1);
  try {
    kernel.prepack(Context{&pool}, {owned.weight}, arena);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, ErrorKind::no_device);
    EXPECT_NE(std::string(error.what()).find("65537"), std::string::npos) << error.what();
  }
}

TEST(Table, EveryIsaRunsEveryPacking) {
  for (const char* isa : {"ref", "avx2", "avx512"}) {
    for (int p = 0; p <= static_cast<int>(Packing::int8_zero); ++p) {
      if (static_cast<Packing>(p) == Packing::fp8_channel_24 && isa != std::string("ref")) {
        EXPECT_THROW(find_linear(isa, Packing::fp8_channel_24), Error);  // ref and CUDA alone
        continue;
      }
      EXPECT_NO_THROW(find_linear(isa, static_cast<Packing>(p)));
    }
    EXPECT_NO_THROW(find_ops(isa));
  }
}

TEST(Table, WhatHasNoKernelIsRefusedWithWhatHas) {
  try {
    find_linear("cuda", Packing::q2_k);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, ErrorKind::no_device);
    const std::string message = error.what();
    EXPECT_NE(message.find("q2_k weights on cuda"), std::string::npos) << message;
  }
}

TEST(Table, UnknownIsaIsRefusedByName) {
  try {
    require_isa("sse9");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, ErrorKind::no_device);
    EXPECT_NE(std::string(error.what()).find("'sse9'"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace tandem
