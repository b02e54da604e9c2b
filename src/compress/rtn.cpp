#include "compress/rtn.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

constexpr float kBf16Eps = 0x1p-7f;
constexpr float kInt8HalfRange = 127.5f;
constexpr float kInt4HalfRange = 7.5f;

float half_range(const Encoding& encoding) {
  return encoding.packing == Packing::int8_channel  ? kInt8HalfRange
         : encoding.packing == Packing::fp8_channel ? kMaxE4M3
                                                    : kInt4HalfRange;
}

int64_t group_of(const Encoding& encoding, int64_t K) {
  const bool is_int4 = encoding.packing == Packing::int4_group;
  CHECK(is_int4 || encoding.packing == Packing::int8_channel ||
            encoding.packing == Packing::fp8_channel,
        "encoding {}", encoding.name());
  const int64_t group = is_int4 ? encoding.group : K;
  CHECK(group > 0 && K % group == 0 && (!is_int4 || group % 8 == 0), "K {} group {}", K, group);
  return group;
}

// float_to_bf16 without its branch for NaN, so that loops over it become vector code.
inline float finite_to_bf16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  return std::bit_cast<float>((u + 0x7FFFu + (u >> 16 & 1)) & 0xFFFF0000u);
}

inline void store_bf16(float value, std::byte* out) {
  const uint16_t h = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
  std::memcpy(out, &h, sizeof h);
}

// Bits of the largest magnitude: as integers, magnitudes order like the numbers, NaN above
// infinity.
int32_t max_magnitude_bits(const float* w, int64_t n) {
  int32_t max_bits = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t bits = std::bit_cast<int32_t>(w[i]) & 0x7FFFFFFF;
    max_bits = bits > max_bits ? bits : max_bits;
  }
  return max_bits;
}

float scale_of(const float* w, int64_t n, float half) {
  const float scale = finite_to_bf16(std::bit_cast<float>(max_magnitude_bits(w, n)) / half);
  return scale == 0.0f ? kBf16Eps : scale;
}

inline int32_t code_of(float w, float scale, float half) {
  // NOTE: a denormal scale can make the quotient infinite, which the rounding keeps and the clamp
  // ends.
  float t = finite_to_bf16(w / scale);
  const float low = -half - 0.5f, high = half - 0.5f;
  t = t < low ? low : t;
  t = t > high ? high : t;
  // Adding 1.5 * 2^23 leaves no bits below 1: the addition itself rounds half to even.
  return std::bit_cast<int32_t>(t + 12582912.0f) - std::bit_cast<int32_t>(12582912.0f);
}

}  // namespace

bool round_row_to_bf16(float* row, int64_t K) {
  constexpr int32_t kInfinity = 0x7F800000;
  if (max_magnitude_bits(row, K) >= kInfinity) return false;
  for (int64_t k = 0; k < K; ++k) row[k] = finite_to_bf16(row[k]);
  return max_magnitude_bits(row, K) < kInfinity;
}

void store_row_bf16(const float* row, int64_t K, std::byte* out) {
  for (int64_t k = 0; k < K; ++k) store_bf16(row[k], out + 2 * k);
}

float llm_int8_magnitude(const float* row, int64_t K) {
  return std::bit_cast<float>(max_magnitude_bits(row, K));
}

void llm_int8_codes(const float* row, int64_t K, std::byte* codes) {
  const float magnitude = llm_int8_magnitude(row, K), factor = 127.0f / magnitude;
  for (int64_t k = 0; k < K; ++k) {
    // A magnitude so small that the factor overflows leaves no row but zeros in 16 bits.
    const float code = std::isfinite(factor) ? std::nearbyintf(row[k] * factor) : 0.0f;
    codes[k] = static_cast<std::byte>(static_cast<int8_t>(code));
  }
}

void rtn_scales(const float* row, int64_t K, const Encoding& encoding, std::byte* scales) {
  const int64_t group = group_of(encoding, K);
  for (int64_t begin = 0; begin < K; begin += group, scales += 2) {
    store_bf16(scale_of(row + begin, group, half_range(encoding)), scales);
  }
}

void rtn_codes(const float* row, int64_t K, const Encoding& encoding, std::byte* codes) {
  const int64_t group = group_of(encoding, K);
  if (encoding.packing == Packing::fp8_channel) {
    const float scale = scale_of(row, K, kMaxE4M3);
    // The library adds a zero point, which takes the sign from a zero.
    for (int64_t k = 0; k < K; ++k) {
      codes[k] = static_cast<std::byte>(float_to_e4m3(finite_to_bf16(row[k] / scale) + 0.0f));
    }
    return;
  }
  if (encoding.packing == Packing::int8_channel) {
    const float scale = scale_of(row, K, kInt8HalfRange);
    for (int64_t k = 0; k < K; ++k) {
      codes[k] = static_cast<std::byte>(code_of(row[k], scale, kInt8HalfRange));
    }
    return;
  }
  for (int64_t begin = 0; begin < K; begin += group) {
    const float scale = scale_of(row + begin, group, kInt4HalfRange);
    // Little endian words of eight nibbles, low first, are bytes of two nibbles, low first.
    for (int64_t k = begin; k < begin + group; k += 2) {
      const int32_t low = code_of(row[k], scale, kInt4HalfRange) + 8;
      const int32_t high = code_of(row[k + 1], scale, kInt4HalfRange) + 8;
      codes[k / 2] = static_cast<std::byte>(low | high << 4);
    }
  }
}

}  // namespace tandem
