// The CUDA rows of the kernel table.
#include "kernels/rows.h"

#include <array>
#include <vector>

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/older/generations.h"

namespace tandem {
namespace {

using OlderKernelsOf = const OlderKernels& (*)();
#ifdef TANDEM_CUDA_OLDER
constexpr std::array<OlderKernelsOf, 3> kOlder{sm_89::kernels, sm_80::kernels, sm_75::kernels};
#else
constexpr std::array<OlderKernelsOf, 0> kOlder{};
#endif
static_assert(kOlder.empty() || kOlder.size() + 1 == std::size(kGenerations));

}  // namespace

std::span<const LinearKernel> cuda_linear_kernels() {
  static const LinearKernel rows[] = {
      cuda_rows_row("linear_f16_cuda", Packing::f16, ActType::f16),
      cuda_rows_row("linear_bf16_cuda", Packing::bf16, ActType::bf16),
      cuda_rows_row("linear_int8_channel_cuda", Packing::int8_channel, ActType::int8_token),
      cuda_outliers_row("linear_llm_int8_cuda"),
      cuda_rows_row("linear_fp8_channel_cuda", Packing::fp8_channel, ActType::fp8_token),
      cuda_rows_row("linear_fp8_weight_cuda", Packing::fp8_weight, ActType::bf16),
      cuda_rows_row("linear_int8_static_cuda", Packing::int8_static, ActType::int8_static),
      cuda_rows_row("linear_fp8_static_cuda", Packing::fp8_static, ActType::fp8_static),
      cuda_fp8_block_row("linear_fp8_block_cuda"),
      cuda_lookup_row("linear_nf4_cuda", Packing::nf4),
      cuda_lookup_row("linear_fp4_cuda", Packing::fp4),
      cuda_lookup_row("linear_codebook_cuda", Packing::codebook),
      cuda_blocks_row("linear_q4_0_cuda", Packing::q4_0),
      cuda_blocks_row("linear_q4_1_cuda", Packing::q4_1),
      cuda_blocks_row("linear_q8_0_cuda", Packing::q8_0),
      cuda_codes_row("linear_int2_zero_cuda", Packing::int2_zero),
      cuda_codes_row("linear_int3_zero_cuda", Packing::int3_zero),
      cuda_codes_row("linear_int8_zero_cuda", Packing::int8_zero),
      cuda_super_row("linear_q4_k_cuda", Packing::q4_k),
      cuda_super_row("linear_q6_k_cuda", Packing::q6_k),
      cuda_int4_row("linear_int4_group_cuda"),
      cuda_int4_zero_row("linear_int4_zero_cuda"),
      cuda_sparse_row("linear_bf16_24_cuda", Packing::bf16_24),
      cuda_sparse_row("linear_f16_24_cuda", Packing::f16_24),
      cuda_sparse_int4_row("linear_int4_group_24_cuda"),
      cuda_sparse_row("linear_int8_channel_24_cuda", Packing::int8_channel_24),
      cuda_sparse_row("linear_fp8_channel_24_cuda", Packing::fp8_channel_24),
  };
  return rows;
}

const OpSet* cuda_ops() {
  static constexpr KvType kv_types[] = {KvType::bf16, KvType::fp8, KvType::int8, KvType::int4};
  static const OpSet set{"cuda",         cuda_quantize, cuda_rms_norm,      cuda_rope_append,
                         cuda_attention, cuda_act_mul,  kv_types,           &cuda_device_ops(),
                         cuda_attend};
  return &set;
}

std::span<const Generation> built_generations() { return {kGenerations, 1 + kOlder.size()}; }

std::span<const LinearKernel> older_cuda_linear_kernels() {
  static const std::vector<LinearKernel> all = [] {
    std::vector<LinearKernel> rows;
    for (const auto older : kOlder)
      rows.insert(rows.end(), older().linears.begin(), older().linears.end());
    return rows;
  }();
  return all;
}

std::span<const OpSet> older_cuda_ops() {
  static const std::vector<OpSet> all = [] {
    std::vector<OpSet> sets;
    for (const auto older : kOlder) sets.push_back(older().ops);
    return sets;
  }();
  return all;
}

const char* cuda_reason(std::string_view isa, Packing packing) {
  for (const Generation& generation : kGenerations) {
    if (isa != generation.isa || generation.has_bf16()) continue;
    for (const LinearKernel& row : cuda_linear_kernels()) {
      if (row.packing == packing && row.act_type == ActType::bf16)
        return " (its tensor cores have no bf16)";
    }
  }
  return "";
}

}  // namespace tandem
