// FP8 with one scale for a whole matrix, for each row, or for each block of 128 x 128, the last of a
// row or a column perhaps smaller: scales from the largest magnitudes of the blocks, then codes a row
// at a time.
//
//   bf16 scales, bit for bit compressed-tensors' (rtn.h):  s = bf16(max / 448), code = e4m3(bf16(w / s))
//   f32 scales, as transformers makes DeepSeek's files:     f = (1 / max) 448, code = e4m3(w f), s = 1 / f
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tensor/encoding.h"

namespace tandem {

struct Fp8Grid {
  int64_t N = 0, K = 0;
  int64_t rows = 0, columns = 0;  // of a block
  ScaleType scale_type = ScaleType::bf16;
  std::vector<float> magnitudes;  // [row_blocks(), column_blocks()] max|w|

  Fp8Grid(int64_t N, int64_t K, int64_t rows, int64_t columns, ScaleType scale_type);
  int64_t row_blocks() const { return (N + rows - 1) / rows; }
  int64_t column_blocks() const { return (K + columns - 1) / columns; }
  size_t scale_row_bytes() const {
    return static_cast<size_t>(column_blocks()) * scale_bytes(scale_type);
  }

  // Takes row n, bf16 numbers, into account. Rows of different blocks may come from different threads.
  void add_row(int64_t n, const float* row);
  // After all rows: the scales of a row of blocks, scale_row_bytes(), and the codes of row n, [K].
  void store_scales(int64_t row_block, std::byte* out) const;
  void store_codes(int64_t n, const float* row, std::byte* out) const;
};

}  // namespace tandem
