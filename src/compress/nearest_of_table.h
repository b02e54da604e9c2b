// A row of bf16 numbers -> nf4, fp4 or a code book's: codes and absmax of blocks, bit for bit as bitsandbytes does
// it for a bf16 model.
//
//   a = max|w| of the block;  v = clamp(w * (1 / max(a, 1e-38)), -1, 1)
//   code = the table's number nearest to v; half way between two, the lower of them
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/encoding.h"

namespace tandem {

// f32 absmax of each of the row's blocks. K is whole blocks: CHECKed.
void table_absmax(const float* row, int64_t K, const Encoding& encoding, std::byte* absmax);

// Two codes a byte, the first in the high nibble. values [16]: the table, in any order.
void table_codes(const float* row, int64_t K, const Encoding& encoding, const float* values,
                 std::byte* codes);

}  // namespace tandem
