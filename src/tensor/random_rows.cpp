#include "tensor/random_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tensor/dtype.h"
#include "tensor/sparse.h"

namespace tandem {
namespace {

// Deviations of codes that are equally likely, and of E4M3 in a row whose largest is 448.
constexpr float kNibbles = 4.61f, kBytes = 73.9f, kSixBits = 18.5f, kNf4 = 0.517f, kFp4 = 0.487f;
constexpr float kE4m3 = 110;

static_assert(kPlaces24[0] == 0x4 && kPlaces24[1] == 0x8 && kPlaces24[2] == 0xC &&
                  kPlaces24[3] == 0x9 && kPlaces24[4] == 0xD && kPlaces24[5] == 0xE,
              "random_places names them");

uint32_t stored(float value, ScaleType type) {
  uint32_t bits = 0;
  std::byte bytes[4] = {};
  store_scale(bytes, type, value);
  std::memcpy(&bits, bytes, sizeof bits);
  return bits;
}

void put_f16(uint8_t* to, float value) {
  const uint16_t half = float_to_f16(value);
  std::memcpy(to, &half, sizeof half);
}

// The blocks of GGUF: their scales and minimums. False: not one of them.
bool header_of(const Encoding& encoding, float deviation, RandomRows& rows) {
  const float nibble = deviation / kNibbles;
  rows.block_bytes = static_cast<int64_t>(encoding.row_bytes(encoding.block()));
  switch (encoding.packing) {
    case Packing::q8_0:
      rows.header_bytes = 2;
      put_f16(rows.header, deviation / kBytes);
      return true;
    case Packing::q4_0:
      rows.header_bytes = 2;
      put_f16(rows.header, nibble);
      return true;
    case Packing::q4_1:
      rows.header_bytes = 4;
      put_f16(rows.header, nibble);
      put_f16(rows.header + 2, -7.5f * nibble);
      return true;
    case Packing::q4_k:  // all scales are 32 and all minimums 30, of six bits
      rows.header_bytes = 16;
      put_f16(rows.header, nibble / 32);
      put_f16(rows.header + 2, 8 * nibble / 32);
      std::memset(rows.header + 4, 0xA0, 4);
      std::memset(rows.header + 8, 0x5E, 4);
      std::memset(rows.header + 12, 0xE0, 4);
      return true;
    case Packing::q6_k:
      rows.header_at = 192;
      rows.header_bytes = 18;
      std::memset(rows.header, 32, 16);
      put_f16(rows.header + 16, deviation / kSixBits / 32);
      return true;
    default:
      rows.block_bytes = 0;
      return false;
  }
}

// What one code or number of the row's scales deviates by; 0: such rows are not made.
float deviation_of_codes(const Encoding& encoding) {
  switch (encoding.packing) {
    case Packing::int8_channel:
    case Packing::llm_int8:
    case Packing::int8_channel_24:
      return kBytes;
    case Packing::int4_group:
    case Packing::int4_group_24:
      return kNibbles;
    case Packing::nf4:
      return kNf4;
    case Packing::fp4:
      return kFp4;
    case Packing::fp8_channel:
    case Packing::fp8_weight:
    case Packing::fp8_channel_24:
      return kE4m3;
    default:
      return 0;
  }
}

void put_number(const RandomRows& rows, uint64_t word, int64_t k, std::byte* data) {
  const float value = near_normal(word) * rows.deviation;
  if (rows.numbers == RandomRows::Numbers::e4m3) {
    data[k] = static_cast<std::byte>(float_to_e4m3(value));
    return;
  }
  const uint16_t half =
      rows.numbers == RandomRows::Numbers::f16 ? float_to_f16(value) : float_to_bf16(value);
  std::memcpy(data + 2 * k, &half, sizeof half);
}

// The bytes that random_code gives one by one.
void put_codes(const RandomRows& rows, uint64_t key, std::byte* data) {
  for (int64_t at = 0; at < rows.code_bytes; at += 8) {
    const uint64_t word = random_word(key, at / 8);
    std::memcpy(data + at, &word, static_cast<size_t>(std::min<int64_t>(8, rows.code_bytes - at)));
  }
  if (rows.block_bytes == 0) return;
  for (int64_t at = rows.header_at; at < rows.code_bytes; at += rows.block_bytes) {
    std::memcpy(data + at, rows.header, static_cast<size_t>(rows.header_bytes));
  }
}

}  // namespace

bool random_rows_of(const Encoding& encoding, int64_t K, uint64_t seed, RandomRows& rows) {
  rows = {};
  rows.K = K;
  rows.seed = seed;
  rows.row_bytes = static_cast<int64_t>(encoding.row_bytes(K));
  rows.place_bytes = encoding.is_sparse() ? K / 8 : 0;
  const int64_t kept = encoding.is_sparse() ? K / 2 : K;
  const float deviation = 1.0f / std::sqrt(static_cast<float>(kept));
  const bool is_f16 = encoding.packing == Packing::f16 || encoding.packing == Packing::f16_24;
  if (is_f16 || encoding.packing == Packing::bf16 || encoding.packing == Packing::bf16_24) {
    rows.numbers = is_f16 ? RandomRows::Numbers::f16 : RandomRows::Numbers::bf16;
    rows.count = kept;
    rows.deviation = deviation;
    return true;
  }
  rows.code_bytes = rows.row_bytes - rows.place_bytes;
  if (header_of(encoding, deviation, rows)) return true;
  const float of_codes = deviation_of_codes(encoding);
  if (of_codes == 0) return false;
  if (encoding.has_e4m3_codes()) {
    rows.numbers = RandomRows::Numbers::e4m3;
    rows.count = kept;
    rows.deviation = of_codes;
    rows.code_bytes = 0;
  }
  rows.groups = encoding.groups_per_row(K);
  rows.scale_bytes = static_cast<int64_t>(scale_bytes(encoding.scale_type));
  rows.scale = stored(deviation / of_codes, encoding.scale_type);
  return true;
}

void make_random_row(const RandomRows& rows, int64_t n, std::byte* data, std::byte* scales) {
  const uint64_t key = random_row_key(rows.seed, rows.K, n);
  for (int64_t k = 0; k < rows.count; ++k) put_number(rows, random_word(key, k), k, data);
  put_codes(rows, key, data);
  std::byte* places = data + rows.row_bytes - rows.place_bytes;
  for (int64_t i = 0; i < rows.place_bytes; ++i) {
    places[i] = static_cast<std::byte>(random_places(rows, key, i));
  }
  for (int64_t g = 0; g < rows.groups; ++g) {
    std::memcpy(scales + g * rows.scale_bytes, &rows.scale, static_cast<size_t>(rows.scale_bytes));
  }
}

}  // namespace tandem
