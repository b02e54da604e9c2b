#include "compress/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "compress/quantize_k.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

constexpr float kMaxF16 = 65504.0f;
constexpr int kBlock = 32;

void store_u16(uint16_t value, uint8_t* out) { std::memcpy(out, &value, sizeof value); }

// 1 / d as ggml has it: 0 for a block of zeros, and for one whose scale is too small to invert.
float inverse(float d) {
  const float inverse = 1.0f / d;
  return std::isfinite(inverse) ? inverse : 0.0f;
}

// Codes of 4 bits, or of 5 with the fifth bits in 4 bytes in front: element j in the low nibble of
// byte j, element j + 16 in the high one.
void store_codes(const uint8_t* codes, bool fifth_bits, uint8_t* out) {
  if (fifth_bits) {
    uint32_t upper = 0;
    for (int j = 0; j < kBlock; ++j) upper |= static_cast<uint32_t>(codes[j] >> 4) << j;
    std::memcpy(out, &upper, sizeof upper);
    out += sizeof upper;
  }
  for (int j = 0; j < kBlock / 2; ++j) {
    out[j] = static_cast<uint8_t>((codes[j] & 15) | (codes[j + kBlock / 2] & 15) << 4);
  }
}

// q4_0 (zero 8) and q5_0 (zero 16): the element of the largest magnitude, the first of several,
// becomes code 0, so that the scale carries its sign and nothing clips but its opposite.
void quantize_symmetric(const float* x, int zero, uint8_t* out) {
  float largest = x[0];
  for (int j = 1; j < kBlock; ++j) {
    if (std::fabs(x[j]) > std::fabs(largest)) largest = x[j];
  }
  const float d = largest / static_cast<float>(-zero), id = inverse(d);
  const float offset = static_cast<float>(zero) + 0.5f;
  uint8_t codes[kBlock];
  for (int j = 0; j < kBlock; ++j) {
    codes[j] = static_cast<uint8_t>(std::min(static_cast<int>(x[j] * id + offset), 2 * zero - 1));
  }
  store_u16(float_to_f16(d), out);
  store_codes(codes, zero == 16, out + 2);
}

// q4_1 (15 steps) and q5_1 (31): from the least element to the largest.
void quantize_ranged(const float* x, int steps, uint8_t* out) {
  const auto [least, largest] = std::minmax_element(x, x + kBlock);
  const float min = *least, d = (*largest - min) / static_cast<float>(steps), id = inverse(d);
  uint8_t codes[kBlock];
  for (int j = 0; j < kBlock; ++j) {
    codes[j] = static_cast<uint8_t>(std::min(static_cast<int>((x[j] - min) * id + 0.5f), steps));
  }
  store_u16(float_to_f16(d), out);
  store_u16(float_to_f16(min), out + 2);
  store_codes(codes, steps == 31, out + 4);
}

void quantize_q8_0(const float* x, uint8_t* out) {
  float largest = 0;
  for (int j = 0; j < kBlock; ++j) largest = std::max(largest, std::fabs(x[j]));
  const float d = largest / 127.0f, id = inverse(d);
  store_u16(float_to_f16(d), out);
  for (int j = 0; j < kBlock; ++j) {
    // Half away from zero. The product can pass 127 by a rounding only.
    out[2 + j] = static_cast<uint8_t>(static_cast<int8_t>(std::round(x[j] * id)));
  }
}

void quantize_block(Packing packing, const float* x, uint8_t* out) {
  switch (packing) {
    case Packing::q4_0:
      return quantize_symmetric(x, 8, out);
    case Packing::q5_0:
      return quantize_symmetric(x, 16, out);
    case Packing::q4_1:
      return quantize_ranged(x, 15, out);
    case Packing::q5_1:
      return quantize_ranged(x, 31, out);
    case Packing::q8_0:
      return quantize_q8_0(x, out);
    case Packing::q4_k:
      return quantize_q4_k(x, out);
    case Packing::q6_k:
      return quantize_q6_k(x, out);
    default:
      CHECK(false, "packing {}", static_cast<int>(packing));
  }
}

}  // namespace

bool is_writable(const Encoding& encoding) {
  switch (encoding.packing) {
    case Packing::f32:
    case Packing::f16:
    case Packing::bf16:
    case Packing::q4_0:
    case Packing::q4_1:
    case Packing::q5_0:
    case Packing::q5_1:
    case Packing::q8_0:
    case Packing::q4_k:
    case Packing::q6_k:
      return true;
    default:
      return false;
  }
}

bool row_fits(const Encoding& encoding, const float* row, int64_t K) {
  // The largest float that does not round to an infinite bf16.
  constexpr float kMaxBf16 = 0x1.FEFFFEp127f;
  const float limit = encoding == kF32    ? std::numeric_limits<float>::max()
                      : encoding == kBF16 ? kMaxBf16
                                          : kMaxF16;
  // Written so that NaN, which compares with nothing, does not fit.
  return std::all_of(row, row + K, [limit](float w) { return std::fabs(w) <= limit; });
}

void quantize_row(const Encoding& encoding, const float* row, int64_t K, std::byte* out) {
  CHECK(is_writable(encoding) && K % encoding.block() == 0, "{}, K {}", encoding.name(), K);
  auto* bytes = reinterpret_cast<uint8_t*>(out);
  if (encoding == kF32) {
    std::memcpy(bytes, row, static_cast<size_t>(K) * sizeof(float));
  } else if (encoding == kF16) {
    for (int64_t k = 0; k < K; ++k) store_u16(float_to_f16(row[k]), bytes + 2 * k);
  } else if (encoding == kBF16) {
    for (int64_t k = 0; k < K; ++k) store_u16(float_to_bf16(row[k]), bytes + 2 * k);
  } else {
    const int64_t block = encoding.block();
    for (int64_t k = 0; k < K; k += block, bytes += encoding.row_bytes(block)) {
      quantize_block(encoding.packing, row + k, bytes);
    }
  }
}

}  // namespace tandem
