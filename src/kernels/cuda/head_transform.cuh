// What a head of q or k goes through before attention. A warp has a head; lane l has its channels
// l, l + 32 ... so that both planes of a rotation are in one lane.
#pragma once

#include <cmath>

#include "kernels/cuda/kv_store.cuh"

namespace tandem {

// Of one token.
template <int D>
struct Angles {
  float cosine[D / 64], sine[D / 64];

  // cos_sin [D]: the token's cosines, then its sines.
  __device__ __forceinline__ void load(const float* cos_sin) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < D / 64; ++i) {
      cosine[i] = cos_sin[lane + 32 * i], sine[i] = cos_sin[D / 2 + lane + 32 * i];
    }
  }
};

// bias [D]; null: none.
template <int D>
__device__ __forceinline__ void load_head(const float* head, const float* bias,
                                          float (&x)[D / 32]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < D / 32; ++i) {
    x[i] = head[lane + 32 * i];
    if (bias != nullptr) x[i] += bias[lane + 32 * i];
  }
}

// Norm, RoPE and, where the cache is int4, the rotation of its keys. weight [D]; null: no norm.
template <KvType type, int D>
__device__ __forceinline__ void rotate_head(float (&x)[D / 32], const float* weight, float eps,
                                            const Angles<D>& angles) {
  constexpr int kEach = D / 32, kHalf = kEach / 2;
  if (weight != nullptr) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) sum += x[i] * x[i];
    const float scale = 1.0f / sqrtf(warp_sum(sum) / D + eps);
#pragma unroll
    for (int i = 0; i < kEach; ++i) x[i] = x[i] * scale * weight[threadIdx.x % 32 + 32 * i];
  }
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const float c = angles.cosine[i], s = angles.sine[i], a = x[i], b = x[i + kHalf];
    // Each product rounded, as the reference has it: codes then agree to the bit.
    x[i] = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
    x[i + kHalf] = __fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s));
  }
  if constexpr (type == KvType::int4) rotate_hadamard<D>(x);
}

}  // namespace tandem
