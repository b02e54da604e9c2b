// How rows of a weight meet tokens in the tensor cores, for weights that stay row-major.
#pragma once

#include "kernels/cuda/warp.cuh"

namespace tandem {

// How 16 bytes of rows r and r + 8 meet the same channels of a token: as kSteps mma, of which
// rows() and tokens() make the fragments. A token's channels are kLoads times 16 bytes.
template <typename Mma_>
struct Plain {
  using Mma = Mma_;
  static constexpr int kSteps = 2, kLoads = 1;
  static __device__ __forceinline__ void rows(const uint4& a, const uint4& c,
                                              uint32_t (&out)[kSteps][4]) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      out[s][0] = word(a, 2 * s), out[s][1] = word(c, 2 * s);
      out[s][2] = word(a, 2 * s + 1), out[s][3] = word(c, 2 * s + 1);
    }
  }
  static __device__ __forceinline__ void tokens(const uint4 (&b)[kLoads],
                                                uint32_t (&out)[kSteps][2]) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
      out[s][0] = word(b[0], 2 * s), out[s][1] = word(b[0], 2 * s + 1);
  }
};

struct Fp8 {
  using Mma = MmaF16;
  static constexpr int kSteps = 4, kLoads = 1;
  static __device__ __forceinline__ void rows(const uint4& a, const uint4& c,
                                              uint32_t (&out)[kSteps][4]) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      fp8_to_f16(word(a, s), out[s][0], out[s][2]);
      fp8_to_f16(word(c, s), out[s][1], out[s][3]);
    }
  }
  static __device__ __forceinline__ void tokens(const uint4 (&b)[kLoads],
                                                uint32_t (&out)[kSteps][2]) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) fp8_to_f16(word(b[0], s), out[s][0], out[s][1]);
  }
};

struct Fp8Weight {
  using Mma = MmaBf16;
  static constexpr int kSteps = 4, kLoads = 2;
  static __device__ __forceinline__ void rows(const uint4& a, const uint4& c,
                                              uint32_t (&out)[kSteps][4]) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      fp8_to_bf16(word(a, s), out[s][0], out[s][2]);
      fp8_to_bf16(word(c, s), out[s][1], out[s][3]);
    }
  }
  static __device__ __forceinline__ void tokens(const uint4 (&b)[kLoads],
                                                uint32_t (&out)[kSteps][2]) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
      out[s][0] = word(b[s / 2], s % 2 * 2), out[s][1] = word(b[s / 2], s % 2 * 2 + 1);
  }
};

}  // namespace tandem
