// Conversions between float and the types of 16 and 8 bits: exact widening, round to nearest even
// narrowing.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace tandem {

inline float bf16_to_float(uint16_t h) { return std::bit_cast<float>(static_cast<uint32_t>(h) << 16); }

// NaN stays NaN (quiet); overflow past the largest bf16 becomes infinity.
inline uint16_t float_to_bf16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>(u >> 16 | 0x40);
  return static_cast<uint16_t>((u + 0x7FFFu + (u >> 16 & 1)) >> 16);
}

inline float f16_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t exponent = h >> 10 & 0x1F;
  const uint32_t mantissa = h & 0x3FF;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000u | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal or zero
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

inline uint16_t float_to_f16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  const uint16_t sign = static_cast<uint16_t>(u >> 16 & 0x8000);
  const uint32_t a = u & 0x7FFFFFFFu;
  if (a > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00);
  if (a >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7C00);  // 65536 and above
  if (a < 0x38800000u) {  // below 2^-14: subnormal; adding 0.5 aligns the bits and rounds to even
    const float shifted = std::bit_cast<float>(a) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3F000000u));
  }
  const uint32_t rounded = a + 0xFFFu + (a >> 13 & 1) - 0x38000000u;
  return static_cast<uint16_t>(sign | rounded >> 13);  // 65520 and above carry into infinity
}

// E4M3FN: 1 sign, 4 exponent bits of bias 7, 3 mantissa bits; no infinity, NaN 0x7F and 0xFF.
inline float e4m3_to_float(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80) << 24, magnitude = code & 0x7F;
  if (magnitude == 0x7F) return std::bit_cast<float>(sign | 0x7FC00000u);
  // As an f32 with the exponent bias of f32: subnormals come out right too.
  const float scaled = std::bit_cast<float>(magnitude << 20) * 0x1p120f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

inline constexpr float kMaxE4M3 = 448.0f;

// Beyond +-448, infinities included, the result is +-448; NaN stays NaN.
inline uint8_t float_to_e4m3(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  const uint32_t sign = u >> 24 & 0x80, a = u & 0x7FFFFFFFu;
  if (a > 0x7F800000u) return static_cast<uint8_t>(sign | 0x7F);
  if (a >= 0x43E00000u) return static_cast<uint8_t>(sign | 0x7E);  // 448 and above
  if (a < 0x3C800000u) {  // below 2^-6: subnormal; adding 2^14 aligns the bits and rounds to even
    const float shifted = std::bit_cast<float>(a) + 0x1p14f;
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x46800000u));
  }
  const uint32_t rounded = a + 0x7FFFFu + (a >> 20 & 1) - 0x3C000000u;
  return static_cast<uint8_t>(sign | rounded >> 20);
}

template <typename T>
inline T load_unaligned(const void* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

}  // namespace tandem
