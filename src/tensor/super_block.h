// GGUF's K-quants: 256 elements share an f16 scale (and an f16 for minimums), each group of 16 or 32 of them
// has small integers beside:  w = (d * scale) * (code - zero) - (dmin * min).
#pragma once

#include <cstdint>

#include "tensor/encoding.h"

namespace tandem {

// One super-block, unpacked. Both products are rounded to float before they meet the code, as GGUF's own
// decoder does; scale() and minus_min() keep that order in one place.
struct SuperBlock {
  float d = 0;
  float dmin = 0;        // 0 where the packing stores no minimums
  int zero = 0;          // q3_k: 4, q6_k: 32, else 0
  int64_t group = 32;    // 16 or 32 elements
  uint8_t codes[256];    // below 2^bits
  int8_t scales[16];     // of each group; q3_k and q6_k: signed, else 0..63
  uint8_t mins[16] = {}; // of each group, 0..63

  float scale(int64_t g) const { return d * static_cast<float>(scales[g]); }
  float minus_min(int64_t g) const { return dmin * static_cast<float>(mins[g]); }
  float value(int64_t k) const {
    return scale(k / group) * static_cast<float>(codes[k] - zero) - minus_min(k / group);
  }
};

// p: encoding.row_bytes(256) bytes. The encoding must be one of q2_k .. q6_k: CHECKed.
SuperBlock read_super_block(const Encoding& encoding, const uint8_t* p);

}  // namespace tandem
