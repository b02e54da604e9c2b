// A row of numbers -> a row of one of GGUF's encodings, round to nearest without calibration data.
// The definitions are ggml's: f32, f16, bf16 and the blocks of 32 come out bit for bit as the gguf
// Python package makes them, the super-blocks of 256 by the same search as llama-quantize's.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/encoding.h"

namespace tandem {

// Whether quantize_row knows the encoding: f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k,
// q6_k.
bool is_writable(const Encoding& encoding);

// False when an element is NaN, infinite, or beyond what the encoding's own numbers reach: 65504
// where they are f16 (its elements, or the scales and minimums of codes), the largest bf16.
bool row_fits(const Encoding& encoding, const float* row, int64_t K);

// out[encoding.row_bytes(K)]. The row must fit, the encoding be writable and its block divide K:
// CHECKed but for the first.
void quantize_row(const Encoding& encoding, const float* row, int64_t K, std::byte* out);

}  // namespace tandem
