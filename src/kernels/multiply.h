// Products of plain float matrices, for the work on weights: sums of x x^T over calibration rows,
// Cholesky's and GPTQ's updates, a layer's linears over many tokens.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/thread_pool.h"

namespace tandem {

// Element (i, j) at data[i * row_stride + j * column_stride]; one of the strides is 1.
struct MatrixView {
  const float* data = nullptr;
  int64_t row_stride = 0;
  int64_t column_stride = 1;

  MatrixView transposed() const { return {data, column_stride, row_stride}; }
};

struct Product {
  int64_t M = 0;
  int64_t N = 0;
  int64_t K = 0;
  MatrixView a;  // [M, K]
  MatrixView b;  // [K, N]
  float* c = nullptr;  // [M, ldc]; overlaps neither a nor b
  int64_t ldc = 0;
  float alpha = 1;
  // Of a symmetric result: c below the diagonal is left in an undefined state.
  bool upper_only = false;
};

// c += alpha * a . b in fp32. An element's sum runs over k in order, in blocks whose size is fixed:
// the result does not depend on the number of threads.
using Multiply = void (*)(ThreadPool& pool, const Product& product);

// Of "ref", "avx2" or "avx512". Throws no_device for another name.
Multiply find_multiply(std::string_view isa);

}  // namespace tandem
