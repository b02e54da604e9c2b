// Every linear row of the GPU, at odd shapes and at real ones, against scalar code with the same
// rounded activations.
#include <algorithm>
#include <cmath>

#include "kernels/cuda_memory.h"
#include "kernels/rows.h"
#include "kernels/table.h"

namespace tandem {
namespace {

struct Shape {
  int64_t T, N, K;
  const char* hazard;
};

constexpr Shape kShapes[] = {
    {1, 16, 32, "one tile"},
    {1, 1, 64, "one row"},
    {1, 960, 576, "SmolLM2's q, k and v"},
    {2, 17, 64, "a row beyond"},
    {3, 15, 96, "fewer rows"},
    {7, 33, 128, "one piece"},
    {8, 7, 1536, "deep, few rows"},
    {9, 48, 192, "a token beyond a tile"},
    {16, 40, 320, "two tiles"},
    {17, 64, 576, "three tiles"},
    {33, 250, 64, "tails everywhere"},
    {70, 96, 576, "beyond one pass"},
    {200, 64, 1536, "a prompt"},
    {1, 50, 256, "one super-block"},
    {12, 33, 768, "super-blocks"},
    {140, 40, 512, "a longer prompt"},
    {0, 32, 64, "no tokens"},
    {1, 4096, 4096, "a real matrix"},
    {5, 512, 14336, "a real depth"},
    {2, 40, 28672, "more channels than a block holds at once"},
    {16, 40, 14336, "a depth for four blocks"},
    {15, 40, 28672, "a depth for eight blocks"},
};

std::vector<Encoding> encodings_of(Packing packing) {
  switch (packing) {
    case Packing::q4_0:
      return {kQ4_0};
    case Packing::q4_1:
      return {kQ4_1};
    case Packing::q8_0:
      return {kQ8_0};
    case Packing::int8_channel:
      return {int8_channel(ScaleType::bf16), int8_channel(ScaleType::f32)};
    case Packing::llm_int8:
      return {kLlmInt8};
    case Packing::fp8_channel:
      return {fp8_channel(ScaleType::bf16), fp8_channel(ScaleType::f32)};
    case Packing::fp8_weight:
      return {fp8_weight(ScaleType::bf16)};
    case Packing::fp8_block:
      return {fp8_block(ScaleType::bf16), fp8_block(ScaleType::f32)};
    case Packing::fp8_static:
      return {fp8_static(ScaleType::bf16)};
    case Packing::int8_static:
      return {int8_static(ScaleType::f32)};
    case Packing::int2_zero:
      return {int_zero(2, 64, ScaleType::f16), int_zero(2, 128, ScaleType::bf16)};
    case Packing::int3_zero:
      return {int_zero(3, 32, ScaleType::bf16), int_zero(3, 128, ScaleType::f16)};
    case Packing::int4_zero:
      return {int_zero(4, 32, ScaleType::bf16), int_zero(4, 64, ScaleType::f16),
              int_zero(4, 128, ScaleType::bf16), int_zero(4, 192, ScaleType::f16)};
    case Packing::int8_zero:
      return {int_zero(8, 32, ScaleType::f16), int_zero(8, 192, ScaleType::bf16)};
    case Packing::codebook:
      return {codebook(64), codebook(192)};
    case Packing::nf4:
      return {kNF4, Encoding{Packing::nf4, ScaleType::f32, 128}};
    case Packing::fp4:
      return {kFP4};
    case Packing::int4_group:
      return {int4_group(32, ScaleType::bf16), int4_group(64, ScaleType::f16),
              int4_group(128, ScaleType::bf16), int4_group(96, ScaleType::f16)};
    case Packing::q4_k:
      return {kQ4_K};
    case Packing::q6_k:
      return {kQ6_K};
    case Packing::int8_channel_24:
      return {int8_channel_24(ScaleType::bf16), int8_channel_24(ScaleType::f32)};
    case Packing::fp8_channel_24:
      return {fp8_channel_24(ScaleType::bf16), fp8_channel_24(ScaleType::f32)};
    case Packing::int4_group_24:
      return {int4_group_24(128, ScaleType::f16), int4_group_24(64, ScaleType::bf16),
              int4_group_24(32, ScaleType::f16)};
    default:
      return {Encoding{packing}};
  }
}

// What a kernel may lose of the sum of the magnitudes.
double rounding_of(const LinearKernel& kernel, const Encoding& encoding, int64_t T) {
  // Tensor cores add products of E4M3 with 14 bits or so.
  const bool is_token = is_fp8(kernel.act_type) && kernel.act_type != ActType::fp8_block;
  if (is_token && T > 16) return 5e-4;
  // The numbers of a table, and a prompt's weights, are rounded to bf16.
  if (encoding.is_lookup()) return 2e-3;
  // So are all that have a scale a group on an older generation.
  if (encoding.group != 0 && kernel.isa != std::string_view("cuda")) return 1e-3;
  // A prompt meets integer weights in groups in f16: each factor is rounded once more, by at most
  // 2^-11 of itself.
  if (encoding.group != 0 && T > 64) return 1e-3;
  return 1e-5;
}

class CudaLinear : public testing::TestWithParam<LinearKernel> {
 protected:
  void SetUp() override {
    std::string reason;
    device_ = cuda_or_null(&reason, GetParam().isa);
    if (device_ == nullptr) GTEST_SKIP() << reason;
  }
  void check(const Encoding& encoding, const Shape& shape, bool accumulate,
             bool has_columns = false);

  std::shared_ptr<Device> device_;
  ThreadPool pool_{2};
};

// has_columns: the stored columns are the input channels in another order.
void CudaLinear::check(const Encoding& encoding, const Shape& shape, bool accumulate,
                       bool has_columns) {
  const LinearKernel& kernel = GetParam();
  SCOPED_TRACE(fmt::format("{} {}: T {} N {} K {}{}", encoding.name(), shape.hazard, shape.T,
                           shape.N, shape.K,
                           accumulate ? " accumulate" : has_columns ? " columns" : ""));
  Arena arena(device_.get());
  const Context context{&pool_, device_.get()};
  const int64_t first = shape.N / 3;  // two stacked parts, so that a tile may straddle them
  std::vector<RandomWeight> owned;
  owned.reserve(2);
  if (first > 0) owned.emplace_back(encoding, first, shape.K, 1);
  owned.emplace_back(encoding, shape.N - first, shape.K, 2);
  // The order of GGUF's rotated matrices, where heads divide the part.
  if (first > 0 && first % 16 == 0) owned.front().weight.interleaved_head = 16;
  std::vector<int32_t> columns(static_cast<size_t>(shape.K));
  for (int64_t k = 0; k < shape.K; ++k) {
    columns[static_cast<size_t>(k)] =
        static_cast<int32_t>(has_columns ? shape.K - 1 - (k ^ 21) : k);
  }
  std::vector<Weight> parts;
  for (const auto& part : owned) {
    parts.push_back(part.weight);
    if (has_columns) parts.back().columns = columns.data();
  }
  PackedWeight packed = kernel.prepack(context, parts, arena);
  packed.kernel = &kernel;

  OnDevice<float> x(*device_, random_inputs(kernel.act_type, shape.T * shape.K, 3));
  DeviceActivations act(*device_, kernel.act_type, shape.T, shape.K);
  ASSERT_EQ(packed.columns != nullptr, has_columns);
  act.view.columns = packed.columns;
  find_ops(GetParam().isa).quantize(context, x.data(), shape.K, act.view);
  act.fetch();
  const int64_t ldy = shape.N + 4;
  OnDevice<float> out(*device_, std::vector<float>(static_cast<size_t>(shape.T * ldy), 0.5f));
  kernel.run(context, packed, act.view, out.data(), ldy, accumulate);
  const std::vector<float> y = out.values();

  std::vector<int32_t> all(static_cast<size_t>(shape.N));
  for (size_t n = 0; n < all.size(); ++n) all[n] = static_cast<int32_t>(n);
  OnDevice<int32_t> rows(*device_, all);
  OnDevice<float> gathered(*device_, std::vector<float>(static_cast<size_t>(shape.N * shape.K)));
  kernel.gather_rows(context, packed, rows.data(), shape.N, gathered.data());
  const std::vector<float> decoded = gathered.values();

  const double rounding = rounding_of(kernel, encoding, shape.T);
  std::vector<float> row(static_cast<size_t>(shape.K));
  std::vector<double> tokens;  // [T, K], in the order of the stored columns
  for (int64_t i = 0; i < shape.T * shape.K; ++i)
    tokens.push_back(act.value(i / shape.K, i % shape.K));
  const int64_t step =
      std::max<int64_t>(1, shape.N * shape.T / 4000);  // of a large matrix, some rows
  for (int64_t n = 0; n < shape.N; n += step) {
    const Weight& part = n < first ? parts[0] : parts.back();
    decode_row(part, n < first ? n : n - first, row.data());
    const auto same = std::mismatch(row.begin(), row.end(), decoded.begin() + n * shape.K);
    ASSERT_EQ(same.first - row.begin(), shape.K) << "row " << n << ": " << *same.first << " became "
                                                 << *same.second;
    for (int64_t t = 0; t < shape.T; ++t) {
      double sum = accumulate ? 0.5 : 0.0, magnitude = 0;
      for (int64_t k = 0; k < shape.K; ++k) {
        const double product = static_cast<double>(row[columns[k]]) * tokens[t * shape.K + k];
        sum += product;
        magnitude += std::fabs(product);
      }
      ASSERT_NEAR(y[t * ldy + n], sum, rounding * magnitude + 1e-6) << "t " << t << " n " << n;
    }
  }
  for (int64_t t = 0; t < shape.T; ++t) {
    for (int64_t n = shape.N; n < ldy; ++n) ASSERT_EQ(y[t * ldy + n], 0.5f) << "written beyond N";
  }
}

TEST_P(CudaLinear, AgreesWithScalarCode) {
  for (const Encoding& encoding : encodings_of(GetParam().packing)) {
    for (const Shape& shape : kShapes) {
      if (shape.K % encoding.block() != 0) continue;
      check(encoding, shape, false);
      if (HasFatalFailure()) return;
      check(encoding, shape, true);
      if (HasFatalFailure()) return;
    }
    if (encoding.group != 0 && encoding.packing != Packing::fp8_block) continue;
    const int64_t odd = encoding.is_sparse() ? 168 : 172;
    check(encoding, {5, 19, odd, "a width that nothing divides"}, false);
  }
}

// GPTQ's act-order.
TEST_P(CudaLinear, TakesColumnsInAnotherOrder) {
  const Packing packing = GetParam().packing;
  for (const Encoding& encoding : encodings_of(packing)) {
    if (!encoding.has_zeros() && packing != Packing::int4_group) continue;
    for (const Shape& shape : kShapes) {
      if (shape.K % encoding.block() != 0) continue;
      check(encoding, shape, false, true);
      if (HasFatalFailure()) return;
    }
  }
}

// Tokens up to which the order of a sum does not depend on their number.
int64_t most_alike(const Encoding& encoding) {
  if (encoding.packing == Packing::int4_group || encoding.packing == Packing::int4_zero ||
      encoding.packing == Packing::int4_group_24)
    return 2;
  return encoding.is_lookup() ? 4 : 8;
}

// A token's result is the same, bit for bit, whatever few tokens stand beside it.
TEST_P(CudaLinear, TokensDoNotDependOnTheirNeighbours) {
  const LinearKernel& kernel = GetParam();
  constexpr int64_t N = 250, K = 14336;
  const Encoding encoding = encodings_of(kernel.packing).front();
  const int64_t most = most_alike(encoding);
  const Context context{&pool_, device_.get()};
  Arena arena(device_.get());
  RandomWeight owned(encoding, N, K, 1);
  PackedWeight packed = kernel.prepack(context, {owned.weight}, arena);
  packed.kernel = &kernel;
  const std::vector<float> x = random_inputs(kernel.act_type, most * K, 2);
  const auto run = [&](int64_t first, int64_t count) {
    OnDevice<float> some(*device_, {x.begin() + first * K, x.begin() + (first + count) * K});
    DeviceActivations act(*device_, kernel.act_type, count, K);
    find_ops(GetParam().isa).quantize(context, some.data(), K, act.view);
    OnDevice<float> y(*device_, std::vector<float>(static_cast<size_t>(count * N)));
    kernel.run(context, packed, act.view, y.data(), N, false);
    return y.values();
  };
  const std::vector<float> together = run(0, most);
  for (int64_t t = 0; t < most; ++t) {
    const std::vector<float> alone = run(t, 1);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + t * N)) << "token " << t;
  }
}

INSTANTIATE_TEST_SUITE_P(Rows, CudaLinear,
                         testing::ValuesIn(cuda_linear_kernels().begin(),
                                           cuda_linear_kernels().end()),
                         [](const auto& param) { return std::string(param.param.name); });
INSTANTIATE_TEST_SUITE_P(Older, CudaLinear,
                         testing::ValuesIn(older_cuda_linear_kernels().begin(),
                                           older_cuda_linear_kernels().end()),
                         [](const auto& param) { return std::string(param.param.name); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(CudaLinear);

}  // namespace
}  // namespace tandem
