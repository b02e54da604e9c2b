// Integers of 4 bits in groups -> GGUF's blocks of 32, without rounding a weight anew: codes stay,
// a scale is repeated for each block of its group.
//   int4_group -> q4_0, q4_1; int4_zero -> q4_1. Scales become f16, which those of AWQ and GPTQ
//   are; the minimum of q4_1, -zero * scale, is rounded to f16 (a symmetric one's, -8 * scale,
//   never).
#pragma once

#include "formats/checkpoint.h"

namespace tandem {

// Whether a layer's matrix is such integers.
bool has_four_bit_integers(const Checkpoint& source);

// Throws usage, naming the tensor and what holds it, when a matrix of the source is quantized
// otherwise than `to` can say: other bits, zero points in q4_0, columns in another order.
void check_converts(const Checkpoint& source, const Encoding& to);

// out[to.row_bytes(K)]. False when a scale is not finite in f16.
bool convert_row(const Weight& w, int64_t n, const Encoding& to, std::byte* out);

}  // namespace tandem
