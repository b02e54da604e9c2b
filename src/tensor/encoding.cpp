#include "tensor/encoding.h"

#include "base/error.h"
#include "tensor/dtype.h"

namespace tandem {

int Encoding::bits() const {
  switch (packing) {
    case Packing::f32: return 32;
    case Packing::f16:
    case Packing::bf16:
    case Packing::f16_24:
    case Packing::bf16_24: return 16;
    case Packing::q8_0:
    case Packing::int8_channel:
    case Packing::llm_int8:
    case Packing::int8_channel_24:
    case Packing::int8_zero:
    case Packing::fp8_channel_24:
    case Packing::fp8_channel:
    case Packing::fp8_weight:
    case Packing::fp8_block:
    case Packing::fp8_static:
    case Packing::int8_static: return 8;
    case Packing::q4_0:
    case Packing::q4_1:
    case Packing::iq4_nl:
    case Packing::q4_k:
    case Packing::nf4:
    case Packing::fp4:
    case Packing::codebook:
    case Packing::int4_group:
    case Packing::int4_zero:
    case Packing::int4_group_24: return 4;
    case Packing::q2_k:
    case Packing::int2_zero: return 2;
    case Packing::q3_k:
    case Packing::int3_zero: return 3;
    case Packing::q5_0:
    case Packing::q5_1:
    case Packing::q5_k: return 5;
    case Packing::q6_k: return 6;
  }
  return 0;
}

ActType Encoding::act_type() const {
  switch (packing) {
    case Packing::f32:
    case Packing::f16:
    case Packing::bf16:
    case Packing::f16_24:
    case Packing::bf16_24:
    case Packing::fp8_weight:
    case Packing::nf4:
    case Packing::fp4:
    case Packing::codebook: return ActType::f32;
    case Packing::fp8_channel:
    case Packing::fp8_channel_24: return ActType::fp8_token;
    case Packing::fp8_block: return ActType::fp8_block;
    case Packing::fp8_static: return ActType::fp8_static;
    case Packing::int8_static: return ActType::int8_static;
    case Packing::int8_channel:
    case Packing::int8_channel_24: return ActType::int8_token;
    case Packing::llm_int8: return ActType::int8_outlier;
    default: return ActType::int8_block;
  }
}

std::string Encoding::name() const {
  switch (packing) {
    case Packing::f32: return "f32";
    case Packing::f16: return "f16";
    case Packing::bf16: return "bf16";
    case Packing::q4_1: return "q4_1";
    case Packing::q8_0: return "q8_0";
    case Packing::int8_channel: return "int8 per channel";
    case Packing::llm_int8: return "LLM.int8()";
    case Packing::int4_group: return group == 0 ? "int4" : fmt::format("int4 g{}", group);
    case Packing::fp8_channel: return "fp8 per channel";
    case Packing::fp8_weight: return "fp8 weight-only";
    case Packing::fp8_block: return "fp8 per 128x128";
    case Packing::fp8_static: return "fp8 static";
    case Packing::int8_static: return "int8 static";
    case Packing::codebook: return group == 0 ? "codebook" : fmt::format("codebook g{}", group);
    case Packing::nf4: return group == kNF4.group ? "nf4" : fmt::format("nf4 g{}", group);
    case Packing::fp4: return group == kFP4.group ? "fp4" : fmt::format("fp4 g{}", group);
    case Packing::q4_0: return "q4_0";
    case Packing::q5_0: return "q5_0";
    case Packing::q5_1: return "q5_1";
    case Packing::iq4_nl: return "iq4_nl";
    case Packing::q2_k: return "q2_k";
    case Packing::q3_k: return "q3_k";
    case Packing::q4_k: return "q4_k";
    case Packing::q5_k: return "q5_k";
    case Packing::q6_k: return "q6_k";
    case Packing::bf16_24: return "bf16 2:4";
    case Packing::f16_24: return "f16 2:4";
    case Packing::int8_channel_24: return "int8 per channel 2:4";
    case Packing::fp8_channel_24: return "fp8 per channel 2:4";
    case Packing::int4_group_24: return group == 0 ? "int4 2:4" : fmt::format("int4 g{} 2:4", group);
    case Packing::int2_zero:
    case Packing::int3_zero:
    case Packing::int4_zero:
    case Packing::int8_zero:
      return group == 0 ? fmt::format("int{} zp", bits()) : fmt::format("int{} g{} zp", bits(), group);
  }
  return "?";
}

size_t Encoding::row_bytes(int64_t K) const {
  CHECK(K >= 0 && K % block() == 0, "K {} block {}", K, block());
  const size_t k = static_cast<size_t>(K);
  switch (packing) {
    case Packing::f32: return k * 4;
    case Packing::f16:
    case Packing::bf16: return k * 2;
    case Packing::q4_1: return k / 32 * 20;
    case Packing::q8_0: return k / 32 * 34;
    case Packing::int8_channel:
    case Packing::llm_int8:
    case Packing::fp8_channel:
    case Packing::fp8_weight:
    case Packing::fp8_block:
    case Packing::fp8_static:
    case Packing::int8_static: return k;
    case Packing::nf4:
    case Packing::fp4:
    case Packing::codebook: return (k + 1) / 2;
    case Packing::int4_group: return (k + 7) / 8 * 4;
    case Packing::q4_0:
    case Packing::iq4_nl: return k / 32 * 18;
    case Packing::q5_0: return k / 32 * 22;
    case Packing::q5_1: return k / 32 * 24;
    case Packing::q2_k: return k / 256 * 84;
    case Packing::q3_k: return k / 256 * 110;
    case Packing::q4_k: return k / 256 * 144;
    case Packing::q5_k: return k / 256 * 176;
    case Packing::q6_k: return k / 256 * 210;
    case Packing::f16_24:
    case Packing::bf16_24: return k + k / 8;
    case Packing::int4_group_24: return k / 4 + k / 8;
    case Packing::int8_channel_24:
    case Packing::fp8_channel_24: return k / 2 + k / 8;
    case Packing::int2_zero:
    case Packing::int3_zero:
    case Packing::int4_zero:
    case Packing::int8_zero: return k / 8 * static_cast<size_t>(bits());
  }
  return 0;
}

Encoding int_zero(int bits, int64_t group, ScaleType scale) {
  CHECK(bits == 2 || bits == 3 || bits == 4 || bits == 8, "bits {}", bits);
  CHECK(group > 0 && group % kActBlock == 0, "group {}", group);
  return {bits == 2   ? Packing::int2_zero
          : bits == 3 ? Packing::int3_zero
          : bits == 4 ? Packing::int4_zero
                      : Packing::int8_zero,
          scale, group};
}

size_t scale_bytes(ScaleType type) {
  return type == ScaleType::none ? 0 : type == ScaleType::f32 ? 4 : 2;
}

float load_scale(const std::byte* p, ScaleType type) {
  switch (type) {
    case ScaleType::none: return 1.0f;
    case ScaleType::f32: return load_unaligned<float>(p);
    case ScaleType::f16: return f16_to_float(load_unaligned<uint16_t>(p));
    case ScaleType::bf16: return bf16_to_float(load_unaligned<uint16_t>(p));
  }
  return 1.0f;
}

void store_scale(std::byte* p, ScaleType type, float value) {
  if (type == ScaleType::f32) {
    std::memcpy(p, &value, 4);
  } else if (type != ScaleType::none) {
    const uint16_t h = type == ScaleType::f16 ? float_to_f16(value) : float_to_bf16(value);
    std::memcpy(p, &h, 2);
  }
}

const char* act_type_name(ActType type) {
  switch (type) {
    case ActType::f32: return "f32";
    case ActType::int8_block: return "int8 per 32";
    case ActType::int8_token: return "int8 per token";
    case ActType::bf16: return "bf16";
    case ActType::f16: return "f16";
    case ActType::fp8_token: return "fp8 per token";
    case ActType::int8_outlier: return "int8 per token, outliers in 16 bits";
    case ActType::fp8_block: return "fp8 per 128";
    case ActType::fp8_static: return "fp8 static";
    case ActType::int8_static: return "int8 static";
  }
  return "?";
}

}  // namespace tandem
