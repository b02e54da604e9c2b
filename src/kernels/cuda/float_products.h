// fp32 products by cuBLASLt, which cublas.h finds.
#pragma once

#include <cstdint>

namespace tandem {

class Cublas;

// As the library counts, in columns: c[M, N] = alpha op(a)[M, K] . op(b)[K, N], or added to c;
// `count` of them at strides. No narrower type is used on the way.
struct FloatMatmul {
  int64_t M, N, K;
  const float* a;
  int64_t lda;
  bool a_transposed;
  const float* b;
  int64_t ldb;
  bool b_transposed;
  float* c;
  int64_t ldc;
  float alpha = 1;
  bool accumulate = false;
  int64_t count = 1, a_stride = 0, b_stride = 0, c_stride = 0;
};

class FloatProducts {
 public:
  // The library's; null where there is none.
  static FloatProducts* of(Cublas* cublas);
  virtual ~FloatProducts() = default;
  // Throws system, with the library's status, when it fails.
  virtual void multiply(const FloatMatmul& call, void* stream) = 0;
};

}  // namespace tandem
