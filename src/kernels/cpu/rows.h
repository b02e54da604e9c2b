// The rows of one instruction set, in the set's own translation unit: KERNEL("f32") is a row's name there.
#pragma once

template <class Linear>
constexpr LinearKernel row(const char* name, Packing packing, ActType act_type) {
  return {name, Set::kIsa, packing, act_type, Linear::prepack, Linear::run, Linear::decode_row};
}

template <Packing packing>
constexpr LinearKernel sparse_row(const char* name) {
  using Linear = SparseLinear<Set, packing>;
  LinearKernel kernel = row<Linear>(name, packing, Linear::kActType);
  kernel.skips_zeros = true;
  return kernel;
}

// Bits of a code, whether minimums are stored; scales in f16.
template <int Bits, bool HasMin>
using HalfCodes = CodesLinear<Set, CodeFormat<Bits, HasMin, PanelScale::f16>>;
using ChannelCodes = CodesLinear<Set, CodeFormat<8, false, PanelScale::f32>>;
template <int Bits, int Group, bool HasMin, int Zero>
using SuperCodes = SuperLinear<Set, SuperFormat<Bits, Group, HasMin, Zero>>;

constexpr LinearKernel kRows[] = {
    row<FloatLinear<Set, Packing::f32>>(KERNEL("f32"), Packing::f32, ActType::f32),
    row<FloatLinear<Set, Packing::f16>>(KERNEL("f16"), Packing::f16, ActType::f32),
    row<FloatLinear<Set, Packing::bf16>>(KERNEL("bf16"), Packing::bf16, ActType::f32),
    row<ChannelCodes>(KERNEL("int8_channel"), Packing::int8_channel, ActType::int8_token),
    row<ChannelCodes>(KERNEL("llm_int8"), Packing::llm_int8, ActType::int8_outlier),
    row<TableLinear<Set, Packing::fp8_channel>>(KERNEL("fp8_channel"), Packing::fp8_channel,
                                                ActType::fp8_token),
    row<TableLinear<Set, Packing::fp8_weight>>(KERNEL("fp8_weight"), Packing::fp8_weight, ActType::f32),
    row<TableLinear<Set, Packing::fp8_block>>(KERNEL("fp8_block"), Packing::fp8_block, ActType::fp8_block),
    row<TableLinear<Set, Packing::fp8_static>>(KERNEL("fp8_static"), Packing::fp8_static, ActType::fp8_static),
    row<ChannelCodes>(KERNEL("int8_static"), Packing::int8_static, ActType::int8_static),
    row<TableLinear<Set, Packing::codebook>>(KERNEL("codebook"), Packing::codebook, ActType::f32),
    sparse_row<Packing::bf16_24>(KERNEL("bf16_24")),
    sparse_row<Packing::f16_24>(KERNEL("f16_24")),
    sparse_row<Packing::int4_group_24>(KERNEL("int4_group_24")),
    sparse_row<Packing::int8_channel_24>(KERNEL("int8_channel_24")),
    row<TableLinear<Set, Packing::nf4>>(KERNEL("nf4"), Packing::nf4, ActType::f32),
    row<TableLinear<Set, Packing::fp4>>(KERNEL("fp4"), Packing::fp4, ActType::f32),
    row<CodesLinearAnyScale<Set, 4>>(KERNEL("int4_group"), Packing::int4_group, ActType::int8_block),
    row<CodesLinearAnyScale<Set, 2, true>>(KERNEL("int2_zero"), Packing::int2_zero, ActType::int8_block),
    row<CodesLinearAnyScale<Set, 3, true>>(KERNEL("int3_zero"), Packing::int3_zero, ActType::int8_block),
    row<CodesLinearAnyScale<Set, 4, true>>(KERNEL("int4_zero"), Packing::int4_zero, ActType::int8_block),
    row<CodesLinearAnyScale<Set, 8, true>>(KERNEL("int8_zero"), Packing::int8_zero, ActType::int8_block),
    row<HalfCodes<4, false>>(KERNEL("q4_0"), Packing::q4_0, ActType::int8_block),
    row<HalfCodes<4, true>>(KERNEL("q4_1"), Packing::q4_1, ActType::int8_block),
    row<HalfCodes<5, false>>(KERNEL("q5_0"), Packing::q5_0, ActType::int8_block),
    row<HalfCodes<5, true>>(KERNEL("q5_1"), Packing::q5_1, ActType::int8_block),
    row<HalfCodes<8, false>>(KERNEL("q8_0"), Packing::q8_0, ActType::int8_block),
    // The code book's values as bytes: 8.5 bits a weight, where the file has 4.5.
    row<HalfCodes<8, false>>(KERNEL("iq4_nl"), Packing::iq4_nl, ActType::int8_block),
    row<SuperCodes<4, 16, true, 0>>(KERNEL("q2_k"), Packing::q2_k, ActType::int8_block),
    row<SuperCodes<4, 16, false, 4>>(KERNEL("q3_k"), Packing::q3_k, ActType::int8_block),
    row<SuperCodes<4, 32, true, 0>>(KERNEL("q4_k"), Packing::q4_k, ActType::int8_block),
    row<SuperCodes<5, 32, true, 0>>(KERNEL("q5_k"), Packing::q5_k, ActType::int8_block),
    row<SuperCodes<6, 16, false, 32>>(KERNEL("q6_k"), Packing::q6_k, ActType::int8_block),
};

constexpr KvType kSetKvTypes[] = {KvType::f32, KvType::bf16, KvType::int8};

constexpr OpSet kOps{Set::kIsa,
                     Elementwise<Set>::quantize,
                     Elementwise<Set>::rms_norm,
                     Elementwise<Set>::rope_append,
                     Attention<Set>::run,
                     Elementwise<Set>::act_mul,
                     kSetKvTypes};
