// Every op for one generation of GPUs older than Hopper: correct, simple, and without a goal of
// speed. CMake compiles this file once a generation with TANDEM_CAPABILITY and TANDEM_GENERATION,
// as that generation's machine code and PTX and nothing newer, so that a newer GPU asked for it
// (--arch-cap) can run nothing else. What a kernel takes is checked against the generation here.
#include "kernels/cuda/older/generations.h"

namespace tandem {
namespace {

constexpr Generation kGeneration = generation_of(TANDEM_CAPABILITY);

}  // namespace
}  // namespace tandem

#include "kernels/cuda/older/attention.cuh"
#include "kernels/cuda/older/linear.cuh"
#include "kernels/cuda/older/ops.cuh"

namespace tandem {
namespace {

constexpr LinearKernel row(const char* name, Packing packing, ActType act_type) {
  return {name, kGeneration.isa, packing, act_type, prepack, run, nullptr, gather_rows};
}

#define TANDEM_TEXT(x) #x
#define TANDEM_NAME(stem, generation) "linear_" stem "_" TANDEM_TEXT(generation)
#define KERNEL(stem) TANDEM_NAME(stem, TANDEM_GENERATION)

// What meets activations in bf16 stands last: a generation without bf16 ends before it.
constexpr LinearKernel kRows[] = {
    row(KERNEL("f16"), Packing::f16, ActType::f16),
    row(KERNEL("int8_channel"), Packing::int8_channel, ActType::int8_token),
    row(KERNEL("fp8_channel"), Packing::fp8_channel, ActType::fp8_token),
    row(KERNEL("int8_static"), Packing::int8_static, ActType::int8_static),
    row(KERNEL("fp8_static"), Packing::fp8_static, ActType::fp8_static),
    row(KERNEL("fp8_block"), Packing::fp8_block, ActType::fp8_block),
    row(KERNEL("q4_0"), Packing::q4_0, ActType::int8_block),
    row(KERNEL("q4_1"), Packing::q4_1, ActType::int8_block),
    row(KERNEL("q8_0"), Packing::q8_0, ActType::int8_block),
    row(KERNEL("q4_k"), Packing::q4_k, ActType::int8_block),
    row(KERNEL("q6_k"), Packing::q6_k, ActType::int8_block),
    row(KERNEL("int4_group"), Packing::int4_group, ActType::f16),
    row(KERNEL("int4_zero"), Packing::int4_zero, ActType::f16),
    row(KERNEL("int2_zero"), Packing::int2_zero, ActType::int8_block),
    row(KERNEL("int3_zero"), Packing::int3_zero, ActType::int8_block),
    row(KERNEL("int8_zero"), Packing::int8_zero, ActType::int8_block),
    row(KERNEL("f16_24"), Packing::f16_24, ActType::f16),
    row(KERNEL("int4_group_24"), Packing::int4_group_24, ActType::f16),
    row(KERNEL("bf16"), Packing::bf16, ActType::bf16),
    row(KERNEL("fp8_weight"), Packing::fp8_weight, ActType::bf16),
    row(KERNEL("nf4"), Packing::nf4, ActType::bf16),
    row(KERNEL("fp4"), Packing::fp4, ActType::bf16),
    row(KERNEL("codebook"), Packing::codebook, ActType::bf16),
    row(KERNEL("bf16_24"), Packing::bf16_24, ActType::bf16),
};

#undef KERNEL
#undef TANDEM_NAME
#undef TANDEM_TEXT

constexpr std::span<const LinearKernel> runnable_rows() {
  size_t count = 0;
  for (const LinearKernel& row : kRows)
    count += kGeneration.has_bf16() || row.act_type != ActType::bf16;
  return std::span(kRows).first(count);
}

}  // namespace

const OlderKernels& TANDEM_GENERATION::kernels() {
  static constexpr KvType kv_types[] = {KvType::bf16, KvType::fp8, KvType::int8, KvType::int4};
  static constexpr DeviceOps device_ops{
      .cos_sin = cos_sin, .select_rows = select_rows, .argmax = argmax};
  static const OlderKernels kernels{runnable_rows(),
                                    {.isa = kGeneration.isa,
                                     .quantize = quantize,
                                     .rms_norm = rms_norm,
                                     .rope_append = rope_append,
                                     .attention = attention,
                                     .act_mul = act_mul,
                                     .kv_types = kv_types,
                                     .device = &device_ops}};
  return kernels;
}

}  // namespace tandem
