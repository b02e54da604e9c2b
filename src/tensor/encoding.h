// What the bits of a weight matrix mean. W[N, K] is row-major, N = out features, K = in features.
//
// Plain encodings store one number an element. Integer encodings store an unsigned code an element
// and, for each group of consecutive elements of a row, a scale and a minimum:
//     w = code * scale + min
// A symmetric code with zero point z is the case min = -z * scale. docs/encodings.md has the pictures.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace tandem {

enum class Packing : uint8_t {
  f32, f16, bf16,  // plain, little endian
  q4_1,            // GGUF: 32 elements = f16 scale, f16 min, 16 bytes; byte j = element j | element j+16 << 4
  q8_0,            // GGUF: 32 elements = f16 scale, 32 signed bytes
  int8_channel,    // compressed-tensors int-quantized: signed bytes [N,K], one scale a row
  int4_group,      // compressed-tensors pack-quantized: int32 [N,K/8], nibbles along K, code = q + 8,
                   // one scale a group
  fp8_channel,     // compressed-tensors float-quantized: E4M3 bytes [N,K], one scale a row; meets
                   // E4M3 activations
  fp8_weight,      // the same bytes, meeting activations that are not quantized
  // bitsandbytes: two codes a byte along K, the first in the high nibble, one absmax a group;
  // w = table[code] * absmax
  nf4, fp4,        // kNf4Values, kFp4Values
  // GGUF: 32 elements = f16 scale, ...
  q4_0,    // 16 bytes as in q4_1; w = (code - 8) * scale
  q5_0,    // 4 bytes of fifth bits, 16 bytes as in q4_1; w = (code - 16) * scale
  q5_1,    // f16 min, then as q5_0; w = code * scale + min
  iq4_nl,  // 16 bytes as in q4_1; w = kIq4Values[code] * scale
  // GGUF: super-blocks of 256 elements (tensor/super_block.h), groups of 16 or 32
  q2_k, q3_k, q4_k, q5_k, q6_k,
  // 2:4, of each 4 neighbouring elements of a row at most 2 are not zero. A row is the K/2 values
  // kept, in order, in the encoding of that name, then K/8 bytes of where they stand
  // (tensor/sparse.h). Groups of a scale count all K elements.
  bf16_24, f16_24, int4_group_24, int8_channel_24, fp8_channel_24,
  llm_int8,  // LLM.int8(), bitsandbytes: bytes as int8_channel, which meet activations whose outliers
             // stand apart
  // E4M3 bytes as fp8_channel: one scale for each 128 elements of a row, against activations with
  // one for each 128 channels; and one scale a row, against activations whose scale the file fixes.
  fp8_block, fp8_static,
  int8_static,  // bytes as int8_channel, against activations whose scale the file fixes
  codebook,     // as nf4; the 16 numbers stand beside the weight (Weight::table)
  // Codes of 2, 3, 4 or 8 bits along K, one after another from the lowest bit of a row's first byte;
  // one scale and one zero point (a byte) a group of whole blocks of 32: w = (code - zero) * scale
  int2_zero, int3_zero, int4_zero, int8_zero,
};

enum class ScaleType : uint8_t { none, f32, f16, bf16 };

// The type in which activations meet a weight; fixed by the weight's encoding at every batch size.
enum class ActType : uint8_t {
  f32,
  int8_block,  // signed bytes, one f32 scale for each 32 consecutive channels of a token
  int8_token,  // signed bytes, one f32 scale a token
  bf16, f16,   // CUDA's plain weights; bf16 also where a weight's codes stand for real numbers
  fp8_token,   // E4M3 bytes, one f32 scale a token
  // int8_token for the elements below kOutlierThreshold; the others in 16 bits, in two planes of bytes,
  // with a scale of their own. Decided for each token alone.
  int8_outlier,
  fp8_block,  // E4M3 bytes, one f32 scale for each kFp8Block consecutive channels of a token
  fp8_static, int8_static,  // the bytes of fp8_token and int8_token, one scale for all tokens
};

inline constexpr int64_t kActBlock = 32;
inline constexpr int64_t kFp8Block = 128;
inline constexpr float kOutlierThreshold = 6.0f;    // magnitude from which on an element is an outlier
// An outlier's code is kOutlierRadix * high + low, both within +-127: kernels negate bytes.
inline constexpr int kOutlierRadix = 254;
inline constexpr float kLargestOutlierCode = 127 * kOutlierRadix + 126;
constexpr int outlier_high(int code) { return (code + 127 + 128 * kOutlierRadix) / kOutlierRadix - 128; }

struct Encoding {
  Packing packing = Packing::f32;
  ScaleType scale_type = ScaleType::none;
  int64_t group = 0;  // elements that share a scale; 0: the whole row, or no scale at all

  bool operator==(const Encoding&) const = default;

  bool is_plain() const { return packing <= Packing::bf16; }
  bool is_super() const { return packing >= Packing::q2_k && packing <= Packing::q6_k; }
  bool is_sparse() const { return packing >= Packing::bf16_24 && packing <= Packing::fp8_channel_24; }
  // A zero point a group, in a plane of its own.
  bool has_zeros() const { return packing >= Packing::int2_zero && packing <= Packing::int8_zero; }
  // w = code * scale + min: what decode_row_codes decodes.
  bool has_integer_codes() const {
    return !is_plain() && !is_fp8() && !is_lookup() && !is_sparse();
  }
  // Elements that only come together: a row is a whole number of blocks.
  int64_t block() const {
    if (packing == Packing::fp8_block) return 1;  // the last group of a row may be short
    return is_super() ? 256 : group != 0 ? group : is_sparse() ? 8 : 1;
  }
  int bits() const;             // bits of a code or a number, without scales
  ActType act_type() const;
  // A code and a scale of its row: what dense E4M3 weights are.
  bool is_fp8() const {
    return packing == Packing::fp8_channel || packing == Packing::fp8_weight ||
           packing == Packing::fp8_block || packing == Packing::fp8_static;
  }
  bool has_e4m3_codes() const { return is_fp8() || packing == Packing::fp8_channel_24; }
  // Activations take the scale that Weight::input_scale gives.
  bool has_input_scale() const {
    return packing == Packing::fp8_static || packing == Packing::int8_static;
  }
  // A code is a place in a table of 16 numbers.
  bool is_lookup() const {
    return packing == Packing::nf4 || packing == Packing::fp4 || packing == Packing::codebook;
  }
  // Name a person reads: "f32", "q4_1", "int8 per channel", "int4 g64".
  std::string name() const;
  // Bytes of the element plane of one row of K elements, a sparse row's places included. K must be a multiple of the block: CHECKed.
  size_t row_bytes(int64_t K) const;
  // Scales in one row.
  int64_t groups_per_row(int64_t K) const { return group == 0 ? 1 : (K + group - 1) / group; }
};

inline constexpr Encoding kF32{Packing::f32};
inline constexpr Encoding kF16{Packing::f16};
inline constexpr Encoding kBF16{Packing::bf16};
inline constexpr Encoding kQ4_1{Packing::q4_1, ScaleType::f16, 32};
inline constexpr Encoding kQ8_0{Packing::q8_0, ScaleType::f16, 32};
inline constexpr Encoding kQ4_0{Packing::q4_0, ScaleType::f16, 32};
inline constexpr Encoding kQ5_0{Packing::q5_0, ScaleType::f16, 32};
inline constexpr Encoding kQ5_1{Packing::q5_1, ScaleType::f16, 32};
inline constexpr Encoding kIQ4_NL{Packing::iq4_nl, ScaleType::f16, 32};
// The scale of a group is the super-block's f16 times a small integer.
inline constexpr Encoding kQ2_K{Packing::q2_k, ScaleType::f16, 16};
inline constexpr Encoding kQ3_K{Packing::q3_k, ScaleType::f16, 16};
inline constexpr Encoding kQ4_K{Packing::q4_k, ScaleType::f16, 32};
inline constexpr Encoding kQ5_K{Packing::q5_k, ScaleType::f16, 32};
inline constexpr Encoding kQ6_K{Packing::q6_k, ScaleType::f16, 16};
inline constexpr Encoding int8_channel(ScaleType scale) { return {Packing::int8_channel, scale, 0}; }
inline constexpr Encoding kLlmInt8{Packing::llm_int8, ScaleType::f32, 0};
inline constexpr Encoding int4_group(int64_t group, ScaleType scale) {
  return {Packing::int4_group, scale, group};
}
// 2, 3, 4 or 8 bits: CHECKed.
Encoding int_zero(int bits, int64_t group, ScaleType scale);

inline constexpr Encoding fp8_channel(ScaleType scale) { return {Packing::fp8_channel, scale, 0}; }
inline constexpr Encoding fp8_weight(ScaleType scale) { return {Packing::fp8_weight, scale, 0}; }
inline constexpr Encoding fp8_block(ScaleType scale) { return {Packing::fp8_block, scale, kFp8Block}; }
inline constexpr Encoding fp8_static(ScaleType scale) { return {Packing::fp8_static, scale, 0}; }
inline constexpr Encoding int8_static(ScaleType scale) { return {Packing::int8_static, scale, 0}; }
inline constexpr Encoding codebook(int64_t group) { return {Packing::codebook, ScaleType::f32, group}; }
inline constexpr Encoding kNF4{Packing::nf4, ScaleType::f32, 64};
inline constexpr Encoding kFP4{Packing::fp4, ScaleType::f32, 64};

// What the codes of nf4 and fp4 stand for, before absmax; bitsandbytes' numbers.
inline constexpr float kNf4Values[16] = {
    -1.0f,                -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
    -0.28444138169288635f, -0.18477343022823334f,     -0.09105003625154495f, 0.0f,
    0.07958029955625534f, 0.16093020141124725f,       0.24611230194568634f, 0.33791524171829224f,
    0.44070982933044434f, 0.5626170039176941f,        0.7229568362236023f,  1.0f};
inline constexpr float kFp4Values[16] = {
    0.0f,  0.0625f / 12,  8.0f / 12,  1.0f,  4.0f / 12,  0.5f,  2.0f / 12,  0.25f,
    0.0f,  -0.0625f / 12, -8.0f / 12, -1.0f, -4.0f / 12, -0.5f, -2.0f / 12, -0.25f};
inline constexpr const float* lookup_values(Packing packing) {
  return packing == Packing::nf4 ? kNf4Values : kFp4Values;
}
inline constexpr Encoding kBF16_24{Packing::bf16_24};
inline constexpr Encoding kF16_24{Packing::f16_24};
inline constexpr Encoding int4_group_24(int64_t group, ScaleType scale) {
  return {Packing::int4_group_24, scale, group};
}
inline constexpr Encoding int8_channel_24(ScaleType scale) {
  return {Packing::int8_channel_24, scale, 0};
}
inline constexpr Encoding fp8_channel_24(ScaleType scale) {
  return {Packing::fp8_channel_24, scale, 0};
}

// What the codes of iq4_nl stand for, before the scale.
inline constexpr int kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                       1,    13,   25,  38,  53,  69,  89,  113};

size_t scale_bytes(ScaleType type);
float load_scale(const std::byte* p, ScaleType type);
void store_scale(std::byte* p, ScaleType type, float value);  // rounds to nearest even

const char* act_type_name(ActType type);
constexpr bool is_fp8(ActType type) {
  return type == ActType::fp8_token || type == ActType::fp8_block || type == ActType::fp8_static;
}

}  // namespace tandem
