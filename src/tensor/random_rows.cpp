#include "tensor/random_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tensor/dtype.h"

namespace tandem {
namespace {

uint32_t stored(float value, ScaleType type) {
  uint32_t bits = 0;
  std::byte bytes[4] = {};
  store_scale(bytes, type, value);
  std::memcpy(&bits, bytes, sizeof bits);
  return bits;
}

}  // namespace

bool random_rows_of(const Encoding& encoding, int64_t K, uint64_t seed, RandomRows& rows) {
  rows = {};
  rows.packing = encoding.packing;
  rows.K = K;
  rows.seed = seed;
  rows.row_bytes = static_cast<int64_t>(encoding.row_bytes(K));
  rows.deviation = 1.0f / std::sqrt(static_cast<float>(K));
  // Uniform codes of 4 and of 8 bits deviate by 4.61 and 73.9.
  const float scale = rows.deviation / (encoding.bits() == 8 ? 73.9f : 4.61f);
  switch (encoding.packing) {
    case Packing::bf16:
    case Packing::f16:
      return true;
    case Packing::q4_1:
      rows.has_min = true;
      rows.min = stored(-7.5f * scale, ScaleType::f16);
      [[fallthrough]];
    case Packing::q4_0:
    case Packing::q8_0:
      rows.block_bytes = static_cast<int64_t>(encoding.row_bytes(32));
      rows.scale = stored(scale, ScaleType::f16);
      return true;
    case Packing::int8_channel:
    case Packing::llm_int8:
    case Packing::int4_group:
      rows.groups = encoding.groups_per_row(K);
      rows.scale_bytes = static_cast<int64_t>(scale_bytes(encoding.scale_type));
      rows.scale = stored(scale, encoding.scale_type);
      return true;
    default:
      return false;
  }
}

void make_random_row(const RandomRows& rows, int64_t n, std::byte* data, std::byte* scales) {
  const uint64_t key = random_row_key(rows.seed, rows.K, n);
  if (rows.packing == Packing::bf16 || rows.packing == Packing::f16) {
    for (int64_t k = 0; k < rows.K; ++k) {
      const float value = near_normal(random_word(key, k)) * rows.deviation;
      const uint16_t half =
          rows.packing == Packing::f16 ? float_to_f16(value) : float_to_bf16(value);
      std::memcpy(data + 2 * k, &half, 2);
    }
    return;
  }
  for (int64_t at = 0; at < rows.row_bytes; at += 8) {
    const uint64_t word = random_word(key, at / 8);
    std::memcpy(data + at, &word, static_cast<size_t>(std::min<int64_t>(8, rows.row_bytes - at)));
  }
  for (int64_t at = 0; rows.block_bytes > 0 && at < rows.row_bytes; at += rows.block_bytes) {
    std::memcpy(data + at, &rows.scale, 2);
    if (rows.has_min) std::memcpy(data + at + 2, &rows.min, 2);
  }
  for (int64_t g = 0; g < rows.groups; ++g) {
    std::memcpy(scales + g * rows.scale_bytes, &rows.scale, static_cast<size_t>(rows.scale_bytes));
  }
}

}  // namespace tandem
