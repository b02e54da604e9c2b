// The CUDA rows of the kernel table.
#include "kernels/rows.h"

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/linear_rows.h"

namespace tandem {

std::span<const LinearKernel> cuda_linear_kernels() {
  static const LinearKernel rows[] = {
      cuda_rows_row("linear_f16_cuda", Packing::f16, ActType::f16),
      cuda_rows_row("linear_bf16_cuda", Packing::bf16, ActType::bf16),
      cuda_rows_row("linear_int8_channel_cuda", Packing::int8_channel, ActType::int8_token),
      cuda_outliers_row("linear_llm_int8_cuda"),
      cuda_rows_row("linear_fp8_channel_cuda", Packing::fp8_channel, ActType::fp8_token),
      cuda_rows_row("linear_fp8_weight_cuda", Packing::fp8_weight, ActType::bf16),
      cuda_lookup_row("linear_nf4_cuda", Packing::nf4),
      cuda_lookup_row("linear_fp4_cuda", Packing::fp4),
      cuda_blocks_row("linear_q4_0_cuda", Packing::q4_0),
      cuda_blocks_row("linear_q4_1_cuda", Packing::q4_1),
      cuda_blocks_row("linear_q8_0_cuda", Packing::q8_0),
      cuda_super_row("linear_q4_k_cuda", Packing::q4_k),
      cuda_super_row("linear_q6_k_cuda", Packing::q6_k),
      cuda_int4_row("linear_int4_group_cuda"),
      cuda_sparse_row("linear_bf16_24_cuda", Packing::bf16_24),
      cuda_sparse_row("linear_f16_24_cuda", Packing::f16_24),
      cuda_sparse_row("linear_int4_group_24_cuda", Packing::int4_group_24),
  };
  return rows;
}

const OpSet* cuda_ops() {
  static constexpr KvType kv_types[] = {KvType::bf16, KvType::fp8, KvType::int8, KvType::int4};
  static const OpSet set{"cuda",         cuda_quantize, cuda_rms_norm, cuda_rope_append,
                         cuda_attention, cuda_act_mul,  kv_types,      &cuda_device_ops()};
  return &set;
}

}  // namespace tandem
