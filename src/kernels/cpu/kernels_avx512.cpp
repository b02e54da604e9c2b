// The kernels of cpu/ compiled for AVX-512 with VNNI. Library headers come first, outside the region, so that no
// inline function of theirs is compiled for an instruction set that the processor may lack.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "kernels/rows.h"
#include "tensor/dtype.h"
#include "tensor/super_block.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
#endif

namespace tandem {
namespace {

#include "kernels/cpu/simd_avx512.h"
// The shared kernels, in terms of the operations above.
#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/code_planes.h"
#include "kernels/cpu/linear_codes.h"
#include "kernels/cpu/linear_float.h"
#include "kernels/cpu/linear_super.h"

using Set = Avx512;

template <class Linear>
constexpr LinearKernel row(const char* name, Packing packing, ActType act_type) {
  return {name, Set::kIsa, packing, act_type, Linear::prepack, Linear::run, Linear::decode_row};
}

constexpr LinearKernel kRows[] = {
    row<FloatLinear<Set, Packing::f32>>("linear_f32_avx512", Packing::f32, ActType::f32),
    row<FloatLinear<Set, Packing::f16>>("linear_f16_avx512", Packing::f16, ActType::f32),
    row<FloatLinear<Set, Packing::bf16>>("linear_bf16_avx512", Packing::bf16, ActType::f32),
    row<CodesLinear<Set, CodeFormat<4, true, PanelScale::f16>>>("linear_q4_1_avx512", Packing::q4_1,
                                                                ActType::int8_block),
    row<CodesLinear<Set, CodeFormat<8, false, PanelScale::f16>>>("linear_q8_0_avx512", Packing::q8_0,
                                                                 ActType::int8_block),
    row<CodesLinear<Set, CodeFormat<8, false, PanelScale::f32>>>("linear_int8_channel_avx512",
                                                                 Packing::int8_channel, ActType::int8_token),
    row<CodesLinearAnyScale<Set, 4>>("linear_int4_group_avx512", Packing::int4_group, ActType::int8_block),
    row<CodesLinear<Set, CodeFormat<4, false, PanelScale::f16>>>("linear_q4_0_avx512", Packing::q4_0,
                                                                 ActType::int8_block),
    row<CodesLinear<Set, CodeFormat<5, false, PanelScale::f16>>>("linear_q5_0_avx512", Packing::q5_0,
                                                                 ActType::int8_block),
    row<CodesLinear<Set, CodeFormat<5, true, PanelScale::f16>>>("linear_q5_1_avx512", Packing::q5_1,
                                                                ActType::int8_block),
    // The code book's values as bytes: 8.5 bits a weight, where the file has 4.5.
    row<CodesLinear<Set, CodeFormat<8, false, PanelScale::f16>>>("linear_iq4_nl_avx512", Packing::iq4_nl,
                                                                 ActType::int8_block),
    row<SuperLinear<Set, SuperFormat<4, 16, true, 0>>>("linear_q2_k_avx512", Packing::q2_k,
                                                       ActType::int8_block),
    row<SuperLinear<Set, SuperFormat<4, 16, false, 4>>>("linear_q3_k_avx512", Packing::q3_k,
                                                        ActType::int8_block),
    row<SuperLinear<Set, SuperFormat<4, 32, true, 0>>>("linear_q4_k_avx512", Packing::q4_k,
                                                       ActType::int8_block),
    row<SuperLinear<Set, SuperFormat<5, 32, true, 0>>>("linear_q5_k_avx512", Packing::q5_k,
                                                       ActType::int8_block),
    row<SuperLinear<Set, SuperFormat<6, 16, false, 32>>>("linear_q6_k_avx512", Packing::q6_k,
                                                         ActType::int8_block),
};

}  // namespace

std::span<const LinearKernel> avx512_linear_kernels() { return kRows; }

const OpSet& avx512_ops() {
  static const OpSet set{Set::kIsa,
                         Elementwise<Set>::quantize,
                         Elementwise<Set>::rms_norm,
                         Elementwise<Set>::rope_append,
                         Attention<Set>::run,
                         Elementwise<Set>::act_mul};
  return set;
}

}  // namespace tandem

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
