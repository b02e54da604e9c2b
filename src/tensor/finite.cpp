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

}  // namespace

bool row_is_finite(const Weight& w, int64_t n) {
  CHECK(n >= 0 && n < w.N, "row {} of {}", n, w.N);
  const std::byte* p = w.data + static_cast<size_t>(n) * w.encoding.row_bytes(w.K);
  switch (w.encoding.packing) {
    case Packing::f32: return all_finite(p, w.K, 4, kF32Exponent);
    case Packing::f16: return all_finite(p, w.K, 2, kF16Exponent);
    case Packing::bf16: return all_finite(p, w.K, 2, kBf16Exponent);
    case Packing::q4_1:
      return all_finite(p, w.K / 32, 20, kF16Exponent) &&
             all_finite(p + 2, w.K / 32, 20, kF16Exponent);
    case Packing::q8_0: return all_finite(p, w.K / 32, 34, kF16Exponent);
    case Packing::int8_channel:
    case Packing::int4_group: return scales_are_finite(w, n);
  }
  return true;
}

}  // namespace tandem
