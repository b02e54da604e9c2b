// y[T,N] = x[T,K] . W[N,K]^T in fp32, straight from the canonical encoding: the truth that every fast
// kernel is judged by. A row is decoded once for all tokens of the step. Nothing is packed: the weight
// stays in the mapped file.
#include "base/error.h"
#include "kernels/rows.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

// Sixteen partial sums in a fixed order: the compiler may keep them in vectors, the result is the same.
float dot(const float* a, const float* b, int64_t K) {
  float sums[16] = {};
  int64_t k = 0;
  for (; k + 16 <= K; k += 16) {
    for (int i = 0; i < 16; ++i) sums[i] += a[k + i] * b[k + i];
  }
  float total = 0;
  for (; k < K; ++k) total += a[k] * b[k];
  for (int i = 0; i < 16; ++i) total += sums[i];
  return total;
}

// The part that holds row n of the stacked matrix; n becomes the row within it.
const Weight& part_of(const PackedWeight& w, int64_t* n) {
  for (const Weight& part : w.parts) {
    if (*n < part.N) return part;
    *n -= part.N;
  }
  CHECK(false, "row beyond N {}", w.N);
}

PackedWeight prepack(const Context&, const std::vector<Weight>& parts, Arena&) {
  PackedWeight packed;
  packed.encoding = parts.front().encoding;
  packed.K = parts.front().K;
  packed.parts = parts;
  for (const Weight& part : parts) packed.N += part.N;
  packed.read_bytes = total_bytes(parts);
  return packed;
}

void decode_packed_row(const PackedWeight& w, int64_t n, float* out) {
  const Weight& part = part_of(w, &n);
  decode_row(part, n, out);
}

std::vector<float> decode_fp8(const Activations& x) {
  std::vector<float> out(static_cast<size_t>(x.T * x.K));
  for (int64_t t = 0; t < x.T; ++t) {
    const auto* codes = reinterpret_cast<const uint8_t*>(x.codes + t * x.K_padded());
    for (int64_t k = 0; k < x.K; ++k) {
      out[t * x.K + k] = e4m3_to_float(codes[k]) * x.scales[k / x.group() * x.T + t];
    }
  }
  return out;
}

std::vector<float> decode_int8(const Activations& x) {
  std::vector<float> out(static_cast<size_t>(x.T * x.K));
  for (int64_t t = 0; t < x.T; ++t) {
    const int8_t* codes = x.codes + t * x.K_padded();
    for (int64_t k = 0; k < x.K; ++k) out[t * x.K + k] = static_cast<float>(codes[k]) * x.scales[t];
  }
  return out;
}

std::vector<float> decode_outliers(const Activations& x) {
  const int64_t ld = x.K_padded();
  std::vector<float> out(static_cast<size_t>(x.T * x.K));
  for (int64_t t = 0; t < x.T; ++t) {
    const int8_t* codes = x.codes + t * x.planes() * ld;
    for (int64_t k = 0; k < x.K; ++k) {
      const auto outlier = static_cast<float>(kOutlierRadix * codes[ld + k] + codes[2 * ld + k]);
      out[t * x.K + k] = static_cast<float>(codes[k]) * x.scales[t] + outlier * x.scales[x.T + t];
    }
  }
  return out;
}

void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
         bool accumulate) {
  CHECK(x.type == w.kernel->act_type && x.K == w.K && ldy >= w.N, "{} K {} {} ldy {} N {}",
        act_type_name(x.type), x.K, w.K, ldy, w.N);
  std::vector<float> decoded;
  if (is_fp8(x.type)) decoded = decode_fp8(x);
  if (x.type == ActType::int8_outlier) decoded = decode_outliers(x);
  if (x.type == ActType::int8_static) decoded = decode_int8(x);
  const float* in = x.type == ActType::f32 ? x.f32 : decoded.data();
  context.pool->parallel_for(w.N, 32, [&](int64_t begin, int64_t end, int) {
    thread_local std::vector<float> row;
    row.resize(static_cast<size_t>(w.K));
    for (int64_t n = begin; n < end; ++n) {
      decode_packed_row(w, n, row.data());
      for (int64_t t = 0; t < x.T; ++t) {
        const float value = dot(in + t * x.K, row.data(), x.K);
        float& out = y[t * ldy + n];
        out = accumulate ? out + value : value;
      }
    }
  });
}

constexpr LinearKernel row(const char* name, Packing packing, ActType act_type = ActType::f32) {
  return {name, "ref", packing, act_type, prepack, run, decode_packed_row};
}

constexpr LinearKernel kRows[] = {
    row("linear_f32_ref", Packing::f32),
    row("linear_f16_ref", Packing::f16),
    row("linear_bf16_ref", Packing::bf16),
    row("linear_q4_1_ref", Packing::q4_1),
    row("linear_q8_0_ref", Packing::q8_0),
    row("linear_int8_channel_ref", Packing::int8_channel),
    row("linear_int4_group_ref", Packing::int4_group),
    // With the activations of the encoding, which are part of what it does.
    row("linear_fp8_channel_ref", Packing::fp8_channel, ActType::fp8_token),
    row("linear_llm_int8_ref", Packing::llm_int8, ActType::int8_outlier),
    row("linear_fp8_block_ref", Packing::fp8_block, ActType::fp8_block),
    row("linear_fp8_static_ref", Packing::fp8_static, ActType::fp8_static),
    row("linear_int8_static_ref", Packing::int8_static, ActType::int8_static),
    row("linear_fp8_weight_ref", Packing::fp8_weight),
    row("linear_codebook_ref", Packing::codebook),
    row("linear_nf4_ref", Packing::nf4),
    row("linear_fp4_ref", Packing::fp4),
    row("linear_q4_0_ref", Packing::q4_0),
    row("linear_q5_0_ref", Packing::q5_0),
    row("linear_q5_1_ref", Packing::q5_1),
    row("linear_iq4_nl_ref", Packing::iq4_nl),
    row("linear_q2_k_ref", Packing::q2_k),
    row("linear_q3_k_ref", Packing::q3_k),
    row("linear_q4_k_ref", Packing::q4_k),
    row("linear_q5_k_ref", Packing::q5_k),
    row("linear_q6_k_ref", Packing::q6_k),
    row("linear_bf16_24_ref", Packing::bf16_24),
    row("linear_f16_24_ref", Packing::f16_24),
    row("linear_int4_group_24_ref", Packing::int4_group_24),
    row("linear_int8_channel_24_ref", Packing::int8_channel_24),
    row("linear_int2_zero_ref", Packing::int2_zero),
    row("linear_int3_zero_ref", Packing::int3_zero),
    row("linear_int4_zero_ref", Packing::int4_zero),
    row("linear_int8_zero_ref", Packing::int8_zero),
    row("linear_fp8_channel_24_ref", Packing::fp8_channel_24, ActType::fp8_token),
};

}  // namespace

std::span<const LinearKernel> ref_linear_kernels() { return kRows; }

}  // namespace tandem
