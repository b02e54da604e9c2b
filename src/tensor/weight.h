// A weight matrix as a file holds it: planes of bytes and the encoding that says what they mean. The
// two decoders here are the only definition of the bits; kernels read weights through them at load.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/encoding.h"

namespace tandem {

struct Weight {
  Encoding encoding;
  int64_t N = 0;                    // rows, out features
  int64_t K = 0;                    // elements a row, in features
  const std::byte* data = nullptr;    // [N, encoding.row_bytes(K)]
  const std::byte* scales = nullptr;  // [N, groups] of encoding.scale_type; null when inside data
  const uint8_t* zeros = nullptr;     // [N, groups] zero points, below 2^bits; encoding.has_zeros() only
  // [K], a permutation: the stored column k is the input channel columns[k] (GPTQ's act-order). null: in order.
  const int32_t* columns = nullptr;
  // GGUF stores the rows of Llama's q and k matrices in the order of interleaved RoPE: within a head
  // of this many rows, file row 2i is logical row i and file row 2i+1 is logical row i + half. 0: none.
  int64_t interleaved_head = 0;
  // 2:4 as sparse-24-bitmask files have it: [N, K/8] bytes, bit k % 8 of byte k / 8 set where element
  // k is kept, and `data` holds the values alone. Null: the places lie behind a row's values.
  const std::byte* mask = nullptr;
  const float* table = nullptr;  // [16], codebook only: what the codes stand for
  float input_scale = 0;         // of the activations; where encoding.has_input_scale()

  // From one row of `data` to the next.
  size_t row_bytes() const {
    return encoding.row_bytes(K) - (mask == nullptr ? 0 : static_cast<size_t>(K / 8));
  }
  size_t data_bytes() const { return static_cast<size_t>(N) * row_bytes(); }
  size_t mask_bytes() const { return mask == nullptr ? 0 : static_cast<size_t>(N * K / 8); }
  size_t scales_bytes() const {
    return scales == nullptr ? 0
                             : static_cast<size_t>(N * encoding.groups_per_row(K)) *
                                   scale_bytes(encoding.scale_type);
  }
  size_t zeros_bytes() const {
    return encoding.has_zeros() ? static_cast<size_t>(N * encoding.groups_per_row(K)) : 0;
  }
  size_t columns_bytes() const { return columns == nullptr ? 0 : static_cast<size_t>(K) * sizeof(int32_t); }
  // Bytes that a kernel must read to use the whole matrix once.
  size_t total_bytes() const {
    return data_bytes() + mask_bytes() + scales_bytes() + zeros_bytes() + columns_bytes();
  }
  // Where the file keeps logical row n.
  int64_t stored_row(int64_t n) const;
};

// What the codes of a lookup encoding stand for, [16].
inline const float* table_of(const Weight& weight) {
  return weight.encoding.packing == Packing::codebook ? weight.table
                                                      : lookup_values(weight.encoding.packing);
}

// Rows [first, first + count) of a weight whose rows are not interleaved, in the same bytes.
Weight row_range(const Weight& weight, int64_t first, int64_t count);

// Whether one row of activations serves both: no columns, or the same.
bool same_columns(const Weight& a, const Weight& b);

// out[K] = row n in float, in the order of the input channels.
void decode_row(const Weight& weight, int64_t n, float* out);

// Row n of an encoding that has integer codes as w = codes[k] * scales[g] + mins[g], g = k / group: codes[K] (below 2^bits;
// iq4_nl: value + 128), scales and mins [groups_per_row]. k counts stored columns.
void decode_row_codes(const Weight& weight, int64_t n, uint8_t* codes, float* scales, float* mins);

// Codes of `bits` (2, 3, 4, 8) one after another from the lowest bit: codes[K] -> out[K bits / 8], and back. K is a
// multiple of 8.
void pack_codes(const uint8_t* codes, int64_t K, int bits, std::byte* out);
void unpack_codes(const std::byte* packed, int64_t K, int bits, uint8_t* codes);

}  // namespace tandem
