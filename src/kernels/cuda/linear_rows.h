// The families of linear kernels: each makes rows of the table.
#pragma once

#include "kernels/ops.h"

namespace tandem {

// linear_rows.cu: bf16, f16, int8_channel, int8_static, fp8_channel, fp8_static, fp8_weight.
LinearKernel cuda_rows_row(const char* name, Packing packing, ActType act_type);
// linear_outliers.cu: llm_int8.
LinearKernel cuda_outliers_row(const char* name);
// linear_fp8_block.cu: fp8_block.
LinearKernel cuda_fp8_block_row(const char* name);
// linear_lookup.cu: nf4, fp4, codebook.
LinearKernel cuda_lookup_row(const char* name, Packing packing);
// linear_blocks.cu: q4_0, q4_1, q8_0.
LinearKernel cuda_blocks_row(const char* name, Packing packing);
// linear_codes.cu: int2_zero, int3_zero, int8_zero.
LinearKernel cuda_codes_row(const char* name, Packing packing);
// linear_super.cu: q4_k, q6_k.
LinearKernel cuda_super_row(const char* name, Packing packing);
// linear_int4.cu: int4_group.
LinearKernel cuda_int4_row(const char* name);
// linear_int4_zero.cu: int4_zero.
LinearKernel cuda_int4_zero_row(const char* name);
// linear_sparse.cu: bf16_24, f16_24, int8_channel_24, fp8_channel_24.
LinearKernel cuda_sparse_row(const char* name, Packing packing);
// linear_sparse_int4.cu: int4_group_24.
LinearKernel cuda_sparse_int4_row(const char* name);

}  // namespace tandem
