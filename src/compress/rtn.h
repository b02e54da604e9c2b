// Round to nearest: a row of bf16 numbers -> codes and bf16 scales, bit for bit as the
// compressed-tensors library does it, so that either program can check the other's files.
//
//   half range h = 127.5 (int8), 7.5 (int4) or 448 (E4M3)
//   s = bf16(max|w| / h), or 2^-7 (the eps of bf16) where that is 0
//   q = round_half_even(clamp(bf16(w / s), -h - 1/2, h - 1/2)); E4M3: the nearest of +-448
//
// Every quotient is rounded to bf16 before it is used: dividing in float alone changes about 9 % of
// the int8 codes. The largest positive weight clips by up to half a step.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/encoding.h"

namespace tandem {

// Rounds row[K] to bf16 in place, keeping it as float. False when an element is NaN or infinite, or
// becomes infinite in bf16.
bool round_row_to_bf16(float* row, int64_t K);

// out[K] = the 16-bit forms of a row that round_row_to_bf16 has rounded.
void store_row_bf16(const float* row, int64_t K, std::byte* out);

// One bf16 scale for each group of K elements that `encoding` (int8_channel, int4_group or
// fp8_channel) has, of a row of bf16 numbers. Groups divide K: CHECKed.
void rtn_scales(const float* row, int64_t K, const Encoding& encoding, std::byte* scales);

// LLM.int8(), as bitsandbytes quantizes a row: magnitude = max|w|, code = rne(w * (127 / magnitude));
// a row of zeros has magnitude 0.
float llm_int8_magnitude(const float* row, int64_t K);
void llm_int8_codes(const float* row, int64_t K, std::byte* codes);

// The codes that go with these scales, in the layout of the encoding: signed or E4M3 bytes [K], or little
// endian int32 [K / 8] with element j of a word in bits 4j..4j+3 as q + 8.
void rtn_codes(const float* row, int64_t K, const Encoding& encoding, std::byte* codes);

}  // namespace tandem
