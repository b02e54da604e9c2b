// The kernels of cpu/ compiled for AVX2. Library headers come first, outside the region, so that no
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

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace tandem {
namespace {

#include "kernels/cpu/simd_avx2.h"
// The shared kernels, in terms of the operations above.
#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/linear_codes.h"
#include "kernels/cpu/linear_float.h"

using Set = Avx2;

template <class Linear>
constexpr LinearKernel row(const char* name, Packing packing, ActType act_type) {
  return {name, Set::kIsa, packing, act_type, Linear::prepack, Linear::run, Linear::decode_row};
}

constexpr LinearKernel kRows[] = {
    row<FloatLinear<Set, Packing::f32>>("linear_f32_avx2", Packing::f32, ActType::f32),
    row<FloatLinear<Set, Packing::f16>>("linear_f16_avx2", Packing::f16, ActType::f32),
    row<FloatLinear<Set, Packing::bf16>>("linear_bf16_avx2", Packing::bf16, ActType::f32),
    row<CodesLinear<Set, CodeFormat<4, true, PanelScale::f16>>>("linear_q4_1_avx2", Packing::q4_1,
                                                                ActType::int8_block),
    row<CodesLinear<Set, CodeFormat<8, false, PanelScale::f16>>>("linear_q8_0_avx2", Packing::q8_0,
                                                                 ActType::int8_block),
    row<CodesLinear<Set, CodeFormat<8, false, PanelScale::f32>>>("linear_int8_channel_avx2",
                                                                 Packing::int8_channel, ActType::int8_token),
    row<CodesLinearAnyScale<Set, 4>>("linear_int4_group_avx2", Packing::int4_group, ActType::int8_block),
};

}  // namespace

std::span<const LinearKernel> avx2_linear_kernels() { return kRows; }

const OpSet& avx2_ops() {
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
