// cuBLASLt, found at run time: half a gigabyte of library that most runs do not need.
#pragma once

#include <cstdint>
#include <memory>

#include "tensor/encoding.h"

namespace tandem {

// y[T, N] (+)= x[T, K] . w[N, K]^T; w and x of `type`; leading dimensions in elements. bf16, f16 and
// fp8_token give f32; int8_token, which does not accumulate, gives int32. Scales are of fp8_token:
// both, or none.
struct MatmulCall {
  ActType type;
  int64_t N, T, K;
  const void* w;
  int64_t ldw;
  const void* x;
  int64_t ldx;
  void* y = nullptr;
  int64_t ldy = 0;
  bool accumulate = false;
  const float* w_scales = nullptr;  // [N]
  const float* x_scales = nullptr;  // [T]
};

class Cublas {
 public:
  // Looks in the loader's path, then in /usr/local/cuda/lib64. Null when there is no such library.
  static std::shared_ptr<Cublas> open();
  virtual ~Cublas() = default;
  // False when cuBLASLt has no algorithm for the shape. Throws system, with its status, when it
  // fails.
  virtual bool matmul(const MatmulCall& call, void* stream) = 0;
  virtual uint64_t version() const = 0;
};

}  // namespace tandem
