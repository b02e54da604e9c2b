// 2:4 weights as the sparse A operand of mma.sp: of each four channels two are there, and `places`
// says which (tensor/sparse.h). Tokens are the B side, four words of a lane.
#pragma once

#include <cstdint>

namespace tandem {

// 32 channels of 16 bits. kLanes: 0 takes the places from the lanes 0 and 1 of each four, 1 from 2
// and 3: four groups of row r in the lower half, of row r + 8 in the upper one.
template <bool kIsBf16, int kLanes>
__device__ __forceinline__ void mma_sparse(float* c, const uint32_t (&a)[4], const uint4& b,
                                           uint32_t places) {
  if constexpr (kIsBf16) {
    asm volatile(
        "mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
        "{%4,%5,%6,%7}, {%8,%9,%10,%11}, {%0,%1,%2,%3}, %12, %13;"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y), "r"(b.z), "r"(b.w),
          "r"(places), "n"(kLanes));
  } else {
    asm volatile(
        "mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
        "{%4,%5,%6,%7}, {%8,%9,%10,%11}, {%0,%1,%2,%3}, %12, %13;"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y), "r"(b.z), "r"(b.w),
          "r"(places), "n"(kLanes));
  }
}

// Mma j of four: 2 i takes the places from word i of the first two lanes, 2 i + 1 from the others.
template <bool kIsBf16>
__device__ __forceinline__ void mma_sparse(float* c, const uint32_t (&a)[4], const uint4& b,
                                           uint2 places, int j) {
  const uint32_t e = j / 2 == 0 ? places.x : places.y;
  if (j % 2 == 0) {
    mma_sparse<kIsBf16, 0>(c, a, b, e);
  } else {
    mma_sparse<kIsBf16, 1>(c, a, b, e);
  }
}

// 64 channels of bytes. Lane 4 r + q gives the places of eight groups: the first eight where q < 2,
// of row r where q is even, of row r + 8 where it is odd.
__device__ __forceinline__ void mma_sparse_bytes(int* c, uint32_t a0, uint32_t a1, uint32_t a2,
                                                 uint32_t a3, const uint4& b, uint32_t places) {
  asm volatile(
      "mma.sp::ordered_metadata.sync.aligned.m16n8k64.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, "
      "{%4,%5,%6,%7}, {%8,%9,%10,%11}, {%0,%1,%2,%3}, %12, 0;"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b.x), "r"(b.y), "r"(b.z), "r"(b.w), "r"(places));
}

// E4M3. On sm_90 the assembler makes two mma of f16 of it, exact but for their sums.
__device__ __forceinline__ void mma_sparse_bytes(float* c, uint32_t a0, uint32_t a1, uint32_t a2,
                                                 uint32_t a3, const uint4& b, uint32_t places) {
  asm volatile(
      "mma.sp::ordered_metadata.sync.aligned.m16n8k64.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, "
      "{%4,%5,%6,%7}, {%8,%9,%10,%11}, {%0,%1,%2,%3}, %12, 0;"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b.x), "r"(b.y), "r"(b.z), "r"(b.w), "r"(places));
}

}  // namespace tandem
