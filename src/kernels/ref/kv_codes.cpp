#include "kernels/ref/kv_codes.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"
#include "kernels/rows.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

uint32_t pack(uint16_t scale, uint16_t min) { return scale | static_cast<uint32_t>(min) << 16; }
float scale_of(uint32_t word) { return bf16_to_float(static_cast<uint16_t>(word)); }
float min_of(uint32_t word) { return bf16_to_float(static_cast<uint16_t>(word >> 16)); }

uint32_t narrow_int4(const float* x, int64_t D, bool finite, uint8_t* codes) {
  const auto [low, high] = std::minmax_element(x, x + D);
  const uint32_t word = finite ? pack(float_to_bf16((*high - *low) / 15.0f), float_to_bf16(*low))
                               : pack(float_to_bf16(NAN), 0);
  const float scale = scale_of(word), min = min_of(word);
  const float inverse = finite && scale > kSmallestMaxAbs ? 1.0f / scale : 0.0f;
  for (int64_t d = 0; d < D; ++d) {
    const float code = inverse > 0 ? std::nearbyintf((x[d] - min) * inverse) : 0.0f;
    codes[d] = static_cast<uint8_t>(std::clamp(code, 0.0f, 15.0f));
  }
  return word;
}

}  // namespace

uint32_t narrow_head(KvType type, const float* x, int64_t D, uint8_t* codes) {
  float max_abs = 0;
  bool finite = true;
  for (int64_t d = 0; d < D; ++d) {
    finite = finite && std::isfinite(x[d]);
    max_abs = std::max(max_abs, std::fabs(x[d]));
  }
  if (type == KvType::int4) return narrow_int4(x, D, finite, codes);
  CHECK(type == KvType::int8 || type == KvType::fp8, "type {}", kv_type_name(type));
  const float largest = type == KvType::fp8 ? kMaxE4M3 : 127.0f;
  const float inverse = finite && max_abs > kv_smallest_max_abs(type) ? largest / max_abs : 0.0f;
  for (int64_t d = 0; d < D; ++d) {
    const float scaled = inverse > 0 ? x[d] * inverse : 0.0f;
    codes[d] = type == KvType::fp8
                   ? float_to_e4m3(scaled)
                   : static_cast<uint8_t>(static_cast<int8_t>(std::nearbyintf(scaled)));
  }
  return std::bit_cast<uint32_t>(finite ? max_abs / largest : NAN);
}

void rotate_hadamard(float* x, int64_t D) {
  if (!std::has_single_bit(static_cast<uint64_t>(D))) return;
  for (int64_t apart = 1; apart < D; apart *= 2) {
    for (int64_t d = 0; d < D; ++d) {
      if ((d & apart) != 0) continue;
      const float a = x[d], b = x[d + apart];
      x[d] = a + b, x[d + apart] = a - b;
    }
  }
  const float factor = 1.0f / std::sqrt(static_cast<float>(D));
  for (int64_t d = 0; d < D; ++d) x[d] *= factor;
}

float widen_code(KvType type, uint8_t code, uint32_t word) {
  switch (type) {
    case KvType::int8:
      return static_cast<float>(static_cast<int8_t>(code)) * std::bit_cast<float>(word);
    case KvType::fp8:
      return e4m3_to_float(code) * std::bit_cast<float>(word);
    case KvType::int4:
      return static_cast<float>(code) * scale_of(word) + min_of(word);
    default:
      CHECK(false, "type {}", kv_type_name(type));
  }
  return 0;
}

}  // namespace tandem
