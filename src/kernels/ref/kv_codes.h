// The definition of the narrow cache types: one head of one token <-> codes and their 32-bit word.
#pragma once

#include <cstdint>

#include "kernels/ops.h"

namespace tandem {

// codes[D] of x[D], one to a byte, int8 in two's complement; returns the word.
uint32_t narrow_head(KvType type, const float* x, int64_t D, uint8_t* codes);

float widen_code(KvType type, uint8_t code, uint32_t word);

// x[D] times the Walsh-Hadamard matrix over sqrt(D), where D is a power of two: what int4 keys and
// their queries go through.
void rotate_hadamard(float* x, int64_t D);

}  // namespace tandem
