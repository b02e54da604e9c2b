// The super-blocks that GGUF's K-quants write (tensor/super_block.h reads them): 256 numbers share
// an f16 scale, each group of 16 or 32 has a small integer times it. For each group a few scales
// about the obvious one are tried and the least squared error, weighted, wins.
#pragma once

#include <cstdint>

namespace tandem {

// x[256], each within f16's range; out[144].
void quantize_q4_k(const float* x, uint8_t* out);

// x[256], each within f16's range; out[210].
void quantize_q6_k(const float* x, uint8_t* out);

}  // namespace tandem
