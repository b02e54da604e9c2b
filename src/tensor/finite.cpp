#include "tensor/finite.h"

#include "base/error.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

constexpr uint16_t kF16Exponent = 0x7C00, kBf16Exponent = 0x7F80;
constexpr uint32_t kF32Exponent = 0x7F800000;

// Whether `count` floats, `stride` bytes apart, are finite: no exponent has all its bits set.
template <typename Bits>
bool all_finite(const std::byte* p, int64_t count, int64_t stride, Bits exponent) {
  bool found = false;
  for (int64_t i = 0; i < count; ++i) {
    found |= (load_unaligned<Bits>(p + i * stride) & exponent) == exponent;
  }
  return !found;
}

bool scales_are_finite(const Weight& w, int64_t n) {
  const int64_t groups = w.encoding.groups_per_row(w.K);
  const auto stride = static_cast<int64_t>(scale_bytes(w.encoding.scale_type));
  const std::byte* p = w.scales + n * groups * stride;
  switch (w.encoding.scale_type) {
    case ScaleType::none: return true;
    case ScaleType::f32: return all_finite(p, groups, stride, kF32Exponent);
    case ScaleType::f16: return all_finite(p, groups, stride, kF16Exponent);
    case ScaleType::bf16: return all_finite(p, groups, stride, kBf16Exponent);
  }
  return true;
}

// E4M3 has no infinity, and one magnitude that is not a number.
bool codes_are_finite(const std::byte* p, int64_t K) {
  bool found = false;
  for (int64_t k = 0; k < K; ++k) found |= (p[k] & std::byte{0x7F}) == std::byte{0x7F};
  return !found;
}

// Where the f16 scales lie in a block of the packings that keep them inside it.
struct BlockScales {
  int64_t elements, bytes;
  int64_t scale, min;  // offsets; min -1: none
};

BlockScales block_scales(Packing packing) {
  switch (packing) {
    case Packing::q4_0:
    case Packing::iq4_nl: return {32, 18, 0, -1};
    case Packing::q4_1: return {32, 20, 0, 2};
    case Packing::q5_0: return {32, 22, 0, -1};
    case Packing::q5_1: return {32, 24, 0, 2};
    case Packing::q8_0: return {32, 34, 0, -1};
    case Packing::q2_k: return {256, 84, 80, 82};
    case Packing::q3_k: return {256, 110, 108, -1};
    case Packing::q4_k: return {256, 144, 0, 2};
    case Packing::q5_k: return {256, 176, 0, 2};
    case Packing::q6_k: return {256, 210, 208, -1};
    default: CHECK(false, "packing {} has no blocks", static_cast<int>(packing));
  }
}

bool blocks_are_finite(const std::byte* p, int64_t K, Packing packing) {
  const BlockScales block = block_scales(packing);
  const int64_t count = K / block.elements;
  return all_finite(p + block.scale, count, block.bytes, kF16Exponent) &&
         (block.min < 0 || all_finite(p + block.min, count, block.bytes, kF16Exponent));
}

}  // namespace

bool row_is_finite(const Weight& w, int64_t n) {
  CHECK(n >= 0 && n < w.N, "row {} of {}", n, w.N);
  const std::byte* p = w.data + static_cast<size_t>(n) * w.row_bytes();
  switch (w.encoding.packing) {
    case Packing::f32: return all_finite(p, w.K, 4, kF32Exponent);
    case Packing::f16: return all_finite(p, w.K, 2, kF16Exponent);
    case Packing::bf16: return all_finite(p, w.K, 2, kBf16Exponent);
    case Packing::f16_24: return all_finite(p, w.K / 2, 2, kF16Exponent);
    case Packing::bf16_24: return all_finite(p, w.K / 2, 2, kBf16Exponent);
    case Packing::int8_channel:
    case Packing::llm_int8:
    case Packing::nf4:
    case Packing::fp4:
    case Packing::codebook:
    case Packing::int8_static:
    case Packing::int4_group:
    case Packing::int4_group_24:
    case Packing::int2_zero:
    case Packing::int3_zero:
    case Packing::int4_zero:
    case Packing::int8_zero:
    case Packing::int8_channel_24: return scales_are_finite(w, n);
    case Packing::fp8_channel:
    case Packing::fp8_weight:
    case Packing::fp8_block:
    case Packing::fp8_static: return scales_are_finite(w, n) && codes_are_finite(p, w.K);
    case Packing::fp8_channel_24: return scales_are_finite(w, n) && codes_are_finite(p, w.K / 2);
    default: return blocks_are_finite(p, w.K, w.encoding.packing);
  }
}

}  // namespace tandem
