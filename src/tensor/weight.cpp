#include "tensor/weight.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "tensor/dtype.h"
#include "tensor/sparse.h"
#include "tensor/super_block.h"

namespace tandem {
namespace {

const std::byte* row_data(const Weight& w, int64_t n) {
  return w.data + static_cast<size_t>(w.stored_row(n)) * w.row_bytes();
}

float row_scale(const Weight& w, int64_t n, int64_t group) {
  const int64_t index = w.stored_row(n) * w.encoding.groups_per_row(w.K) + group;
  return load_scale(w.scales + static_cast<size_t>(index) * scale_bytes(w.encoding.scale_type),
                    w.encoding.scale_type);
}

const uint8_t* row_zeros(const Weight& w, int64_t n) {
  return w.zeros + w.stored_row(n) * w.encoding.groups_per_row(w.K);
}

// The values kept, `value(i)` the i-th of the row, in their places, zero elsewhere.
template <typename Value>
void spread(const Weight& w, int64_t n, float* out, Value value) {
  const RowPlaces places(w, n);
  std::fill_n(out, w.K, 0.0f);
  for (int64_t g = 0; g < w.K / 4; ++g) {
    const int two = places.of(g);
    CHECK(are_places(two), "row {} group {} places {}", n, g, two);
    out[4 * g + (two & 3)] = value(2 * g);
    out[4 * g + (two >> 2)] = value(2 * g + 1);
  }
}

// 32 elements of a GGUF packing: w = scale * (code - zero) + min, rounded in this order.
struct Block {
  float scale;
  float min = -0.0f;  // where none is stored: adding -0 changes no number
  int zero = 0;
  uint8_t codes[32];
};

// q4_0, q4_1, q5_0, q5_1 and iq4_nl: scale, min, fifth bits as stored; nibbles, the first half in the low ones.
Block read_block(Packing packing, const uint8_t* p) {
  Block block;
  block.scale = f16_to_float(load_unaligned<uint16_t>(p));
  p += 2;
  if (packing == Packing::q4_1 || packing == Packing::q5_1) {
    block.min = f16_to_float(load_unaligned<uint16_t>(p));
    p += 2;
  }
  uint32_t upper = 0;
  if (packing == Packing::q5_0 || packing == Packing::q5_1) {
    upper = load_unaligned<uint32_t>(p);
    p += 4;
  }
  for (int j = 0; j < 16; ++j) {
    block.codes[j] = static_cast<uint8_t>((p[j] & 15) | (upper >> j & 1) << 4);
    block.codes[j + 16] = static_cast<uint8_t>(p[j] >> 4 | (upper >> (j + 16) & 1) << 4);
  }
  if (packing == Packing::q4_0) block.zero = 8;
  if (packing == Packing::q5_0) block.zero = 16;
  if (packing == Packing::iq4_nl) {
    // The code book's values lie within a byte, so they are codes themselves.
    block.zero = 128;
    for (uint8_t& code : block.codes) code = static_cast<uint8_t>(kIq4Values[code] + 128);
  }
  return block;
}

}  // namespace

int64_t Weight::stored_row(int64_t n) const {
  if (interleaved_head == 0) return n;
  const int64_t head = n / interleaved_head, r = n % interleaved_head, half = interleaved_head / 2;
  return head * interleaved_head + (r < half ? 2 * r : 2 * (r - half) + 1);
}

Weight row_range(const Weight& w, int64_t first, int64_t count) {
  CHECK(first >= 0 && count > 0 && first <= w.N - count && w.interleaved_head == 0,
        "rows {} + {} of {}, interleaved {}", first, count, w.N, w.interleaved_head);
  Weight part = w;
  part.N = count;
  part.data += static_cast<size_t>(first) * w.row_bytes();
  if (w.mask != nullptr) part.mask += first * w.K / 8;
  if (w.scales != nullptr) {
    part.scales += static_cast<size_t>(first * w.encoding.groups_per_row(w.K)) *
                   scale_bytes(w.encoding.scale_type);
  }
  if (w.zeros != nullptr) part.zeros += first * w.encoding.groups_per_row(w.K);
  return part;
}

bool same_columns(const Weight& a, const Weight& b) {
  if (a.columns == b.columns) return true;
  return a.columns != nullptr && b.columns != nullptr && a.K == b.K &&
         std::equal(a.columns, a.columns + a.K, b.columns);
}

void pack_codes(const uint8_t* codes, int64_t K, int bits, std::byte* out) {
  CHECK(K % 8 == 0, "K {}", K);
  for (int64_t k = 0; k < K; k += 8, out += bits) {
    uint64_t eight = 0;
    for (int j = 0; j < 8; ++j) eight |= static_cast<uint64_t>(codes[k + j]) << (bits * j);
    std::memcpy(out, &eight, static_cast<size_t>(bits));
  }
}

void unpack_codes(const std::byte* packed, int64_t K, int bits, uint8_t* codes) {
  CHECK(K % 8 == 0, "K {}", K);
  const uint64_t mask = (1u << bits) - 1;
  for (int64_t k = 0; k < K; k += 8, packed += bits) {
    uint64_t eight = 0;
    std::memcpy(&eight, packed, static_cast<size_t>(bits));
    for (int j = 0; j < 8; ++j) codes[k + j] = static_cast<uint8_t>(eight >> (bits * j) & mask);
  }
}

void decode_row_codes(const Weight& w, int64_t n, uint8_t* codes, float* scales, float* mins) {
  CHECK(n >= 0 && n < w.N && w.encoding.has_integer_codes(), "row {} of {}, {}", n, w.N, w.encoding.name());
  const auto* p = reinterpret_cast<const uint8_t*>(row_data(w, n));
  switch (w.encoding.packing) {
    case Packing::q8_0:
      for (int64_t b = 0; b < w.K / 32; ++b, p += 34, codes += 32) {
        scales[b] = f16_to_float(load_unaligned<uint16_t>(p));
        mins[b] = -128.0f * scales[b];
        for (int j = 0; j < 32; ++j) codes[j] = p[2 + j] ^ 0x80;
      }
      return;
    case Packing::int8_channel:
    case Packing::llm_int8:
    case Packing::int8_static:
      scales[0] = row_scale(w, n, 0);
      mins[0] = -128.0f * scales[0];
      for (int64_t k = 0; k < w.K; ++k) codes[k] = p[k] ^ 0x80;
      return;
    case Packing::int4_group:
      for (int64_t g = 0; g < w.encoding.groups_per_row(w.K); ++g) {
        scales[g] = row_scale(w, n, g);
        mins[g] = -8.0f * scales[g];
      }
      // Little endian words of eight nibbles, low first, are bytes of two nibbles, low first.
      for (int64_t k = 0; k < w.K; ++k) codes[k] = p[k / 2] >> (k % 2 * 4) & 15;
      return;
    case Packing::q4_0:
    case Packing::q4_1:
    case Packing::q5_0:
    case Packing::q5_1:
    case Packing::iq4_nl:
      for (int64_t b = 0; b < w.K / 32; ++b, p += w.encoding.row_bytes(32)) {
        const Block block = read_block(w.encoding.packing, p);
        scales[b] = block.scale;
        mins[b] = block.min - block.scale * static_cast<float>(block.zero);
        std::copy_n(block.codes, 32, codes + b * 32);
      }
      return;
    case Packing::q2_k:
    case Packing::q3_k:
    case Packing::q4_k:
    case Packing::q5_k:
    case Packing::q6_k:
      for (int64_t b = 0; b < w.K / 256; ++b, p += w.encoding.row_bytes(256)) {
        const SuperBlock block = read_super_block(w.encoding, p);
        std::copy_n(block.codes, 256, codes + b * 256);
        const int64_t groups = 256 / w.encoding.group;
        for (int64_t g = 0; g < groups; ++g) {
          scales[b * groups + g] = block.scale(g);
          mins[b * groups + g] = -block.minus_min(g) - block.scale(g) * static_cast<float>(block.zero);
        }
      }
      return;
    case Packing::int2_zero:
    case Packing::int3_zero:
    case Packing::int4_zero:
    case Packing::int8_zero:
      unpack_codes(row_data(w, n), w.K, w.encoding.bits(), codes);
      for (int64_t g = 0; g < w.encoding.groups_per_row(w.K); ++g) {
        scales[g] = row_scale(w, n, g);
        mins[g] = -static_cast<float>(row_zeros(w, n)[g]) * scales[g];
      }
      return;
    default: CHECK(false, "packing {}", static_cast<int>(w.encoding.packing));
  }
}

namespace {

// In the order of the stored columns.
void decode_stored_row(const Weight& w, int64_t n, float* out) {
  const auto* p = reinterpret_cast<const uint8_t*>(row_data(w, n));
  switch (w.encoding.packing) {
    case Packing::f32: std::memcpy(out, p, static_cast<size_t>(w.K) * 4); return;
    case Packing::f16:
      for (int64_t k = 0; k < w.K; ++k) out[k] = f16_to_float(load_unaligned<uint16_t>(p + 2 * k));
      return;
    case Packing::bf16:
      for (int64_t k = 0; k < w.K; ++k) out[k] = bf16_to_float(load_unaligned<uint16_t>(p + 2 * k));
      return;
    case Packing::q8_0:
      for (int64_t b = 0; b < w.K / 32; ++b, p += 34, out += 32) {
        const float scale = f16_to_float(load_unaligned<uint16_t>(p));
        for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(static_cast<int8_t>(p[2 + j])) * scale;
      }
      return;
    case Packing::int8_channel:
    case Packing::llm_int8:
    case Packing::int8_static: {
      const float scale = row_scale(w, n, 0);
      for (int64_t k = 0; k < w.K; ++k) out[k] = static_cast<float>(static_cast<int8_t>(p[k])) * scale;
      return;
    }
    case Packing::fp8_channel:
    case Packing::fp8_weight:
    case Packing::fp8_static: {
      const float scale = row_scale(w, n, 0);
      for (int64_t k = 0; k < w.K; ++k) out[k] = e4m3_to_float(p[k]) * scale;
      return;
    }
    case Packing::fp8_block:
      for (int64_t k = 0; k < w.K; ++k) {
        out[k] = e4m3_to_float(p[k]) * row_scale(w, n, k / w.encoding.group);
      }
      return;
    case Packing::nf4:
    case Packing::fp4:
    case Packing::codebook: {
      const float* values = table_of(w);
      for (int64_t k = 0; k < w.K; ++k) {
        out[k] = values[p[k / 2] >> (k % 2 == 0 ? 4 : 0) & 15] * row_scale(w, n, k / w.encoding.group);
      }
      return;
    }
    case Packing::int4_group:
      for (int64_t g = 0; g < w.encoding.groups_per_row(w.K); ++g) {
        const float scale = row_scale(w, n, g);
        const int64_t end = std::min((g + 1) * w.encoding.group, w.K);
        for (int64_t k = g * w.encoding.group; k < end; ++k) {
          out[k] = static_cast<float>((p[k / 2] >> (k % 2 * 4) & 15) - 8) * scale;
        }
      }
      return;
    case Packing::q4_0:
    case Packing::q4_1:
    case Packing::q5_0:
    case Packing::q5_1:
    case Packing::iq4_nl:
      for (int64_t b = 0; b < w.K / 32; ++b, p += w.encoding.row_bytes(32), out += 32) {
        const Block block = read_block(w.encoding.packing, p);
        for (int j = 0; j < 32; ++j) {
          out[j] = block.scale * static_cast<float>(block.codes[j] - block.zero) + block.min;
        }
      }
      return;
    case Packing::q2_k:
    case Packing::q3_k:
    case Packing::q4_k:
    case Packing::q5_k:
    case Packing::q6_k:
      for (int64_t b = 0; b < w.K / 256; ++b, p += w.encoding.row_bytes(256), out += 256) {
        const SuperBlock block = read_super_block(w.encoding, p);
        for (int64_t k = 0; k < 256; ++k) out[k] = block.value(k);
      }
      return;
    case Packing::f16_24:
      spread(w, n, out, [&](int64_t i) { return f16_to_float(load_unaligned<uint16_t>(p + 2 * i)); });
      return;
    case Packing::bf16_24:
      spread(w, n, out, [&](int64_t i) { return bf16_to_float(load_unaligned<uint16_t>(p + 2 * i)); });
      return;
    case Packing::int4_group_24:
      spread(w, n, out, [&](int64_t i) {
        const int q = (p[i / 2] >> (i % 2 * 4) & 15) - 8;
        return static_cast<float>(q) * row_scale(w, n, 2 * i / w.encoding.group);
      });
      return;
    case Packing::fp8_channel_24: {
      const float scale = row_scale(w, n, 0);
      spread(w, n, out, [&](int64_t i) { return e4m3_to_float(p[i]) * scale; });
      return;
    }
    case Packing::int8_channel_24: {
      const float scale = row_scale(w, n, 0);
      spread(w, n, out, [&](int64_t i) { return static_cast<float>(static_cast<int8_t>(p[i])) * scale; });
      return;
    }
    case Packing::int2_zero:
    case Packing::int3_zero:
    case Packing::int4_zero:
    case Packing::int8_zero: {
      thread_local std::vector<uint8_t> codes;
      codes.resize(static_cast<size_t>(w.K));
      unpack_codes(row_data(w, n), w.K, w.encoding.bits(), codes.data());
      for (int64_t g = 0; g < w.encoding.groups_per_row(w.K); ++g) {
        const float scale = row_scale(w, n, g);
        const int zero = row_zeros(w, n)[g];
        const int64_t end = std::min((g + 1) * w.encoding.group, w.K);
        for (int64_t k = g * w.encoding.group; k < end; ++k) {
          out[k] = static_cast<float>(codes[static_cast<size_t>(k)] - zero) * scale;
        }
      }
      return;
    }
  }
}

}  // namespace

void decode_row(const Weight& w, int64_t n, float* out) {
  CHECK(n >= 0 && n < w.N, "row {} of {}", n, w.N);
  if (w.columns == nullptr) return decode_stored_row(w, n, out);
  thread_local std::vector<float> stored;
  stored.resize(static_cast<size_t>(w.K));
  decode_stored_row(w, n, stored.data());
  for (int64_t k = 0; k < w.K; ++k) out[w.columns[k]] = stored[static_cast<size_t>(k)];
}

}  // namespace tandem
