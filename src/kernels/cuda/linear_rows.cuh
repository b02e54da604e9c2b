// What the kernels of linear_rows.cu and the products of linear_rows_cublas.cu work on.
#pragma once

#include "kernels/ops.h"

namespace tandem {

// A product of rows, as the kernels get it.
struct Rows {
  const uint8_t* w;
  int64_t ldw;  // bytes
  const uint8_t* x;
  int64_t ldx;                // bytes
  const float* row_scales;    // [N]; null: none
  const float* token_scales;  // [T]; null: none
  float* y;
  int64_t ldy;
  int pieces;          // of a row
  int x_pieces_bytes;  // bytes of a token's row that may be read
  int N, T;
  bool accumulate;
};

// The same through cuBLASLt: see linear_rows_cublas.cu. False when cuBLASLt is not there or does
// not take the shape.
bool run_rows_cublas(const Context& context, const PackedWeight& w, const Activations& x,
                     const Rows& p);

}  // namespace tandem
