#include "tensor/super_block.h"

#include "base/error.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

float f16_at(const uint8_t* p) { return f16_to_float(load_unaligned<uint16_t>(p)); }

// Element j of the i-th 32: so that a loop over j shifts neighbouring bytes by one amount.
// Two bits an element, for each half of 128 elements 32 bytes of four elements, 32 apart.
int two_bits(const uint8_t* p, int i, int j) { return p[i / 4 * 32 + j] >> (i % 4 * 2) & 3; }

// One bit an element, eight elements a byte, 32 apart.
int one_bit(const uint8_t* p, int i, int j) { return p[j] >> i & 1; }

// Four bits an element, two a byte, 32 or 64 elements apart.
int four_bits_32(const uint8_t* p, int i, int j) { return p[i / 2 * 32 + j] >> (i % 2 * 4) & 15; }
int four_bits_64(const uint8_t* p, int i, int j) {
  return p[i / 4 * 64 + i % 2 * 32 + j] >> (i / 2 % 2 * 4) & 15;
}

// Eight 6-bit scales and eight 6-bit minimums in 12 bytes: the first four of each in the low bits of bytes 0-3
// and 4-7, whose upper two bits belong to the last four, with their nibbles in bytes 8-11.
void read_six_bit_pairs(const uint8_t* p, SuperBlock* block) {
  for (int g = 0; g < 4; ++g) {
    block->scales[g] = static_cast<int8_t>(p[g] & 63);
    block->mins[g] = p[g + 4] & 63;
    block->scales[g + 4] = static_cast<int8_t>((p[g + 8] & 15) | (p[g] >> 6) << 4);
    block->mins[g + 4] = static_cast<uint8_t>(p[g + 8] >> 4 | (p[g + 4] >> 6) << 4);
  }
}

// Sixteen 6-bit scales in 12 bytes, less 32: nibbles in bytes 0-7, upper two bits in bytes 8-11.
void read_six_bit_scales(const uint8_t* p, SuperBlock* block) {
  for (int g = 0; g < 16; ++g) {
    const int low = p[g % 8] >> (g / 8 * 4) & 15, high = p[8 + g % 4] >> (g / 4 * 2) & 3;
    block->scales[g] = static_cast<int8_t>((low | high << 4) - 32);
  }
}

}  // namespace

SuperBlock read_super_block(const Encoding& encoding, const uint8_t* p) {
  SuperBlock block;
  block.group = encoding.group;
  const auto fill = [&](auto code) {
    for (int i = 0; i < 8; ++i) {
      for (int j = 0; j < 32; ++j) block.codes[i * 32 + j] = static_cast<uint8_t>(code(i, j));
    }
  };
  switch (encoding.packing) {
    case Packing::q2_k:  // scales and minimums 16, codes 64, d, dmin
      for (int g = 0; g < 16; ++g) {
        block.scales[g] = p[g] & 15;
        block.mins[g] = p[g] >> 4;
      }
      fill([&](int i, int j) { return two_bits(p + 16, i, j); });
      block.d = f16_at(p + 80);
      block.dmin = f16_at(p + 82);
      return block;
    case Packing::q3_k:  // third bits 32, lower bits 64, scales 12, d
      fill([&](int i, int j) { return two_bits(p + 32, i, j) | one_bit(p, i, j) << 2; });
      read_six_bit_scales(p + 96, &block);
      block.d = f16_at(p + 108);
      block.zero = 4;
      return block;
    case Packing::q4_k:  // d, dmin, scales and minimums 12, codes 128
      block.d = f16_at(p);
      block.dmin = f16_at(p + 2);
      read_six_bit_pairs(p + 4, &block);
      fill([&](int i, int j) { return four_bits_32(p + 16, i, j); });
      return block;
    case Packing::q5_k:  // d, dmin, scales and minimums 12, fifth bits 32, lower bits 128
      block.d = f16_at(p);
      block.dmin = f16_at(p + 2);
      read_six_bit_pairs(p + 4, &block);
      fill([&](int i, int j) { return four_bits_32(p + 48, i, j) | one_bit(p + 16, i, j) << 4; });
      return block;
    case Packing::q6_k:  // lower bits 128, upper two bits 64, signed scales 16, d
      fill([&](int i, int j) { return four_bits_64(p, i, j) | two_bits(p + 128, i, j) << 4; });
      for (int g = 0; g < 16; ++g) block.scales[g] = static_cast<int8_t>(p[192 + g]);
      block.d = f16_at(p + 208);
      block.zero = 32;
      return block;
    default: CHECK(false, "packing {} has no super-blocks", encoding.name());
  }
}

}  // namespace tandem
