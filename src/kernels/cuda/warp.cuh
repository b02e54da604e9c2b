// What a warp does together: matrix instructions, 16-byte loads, reductions.
//
// The fragments of mma.sync m16n8 are named by lane = 4 r + q: A is 16 rows x k in four words (rows
// r and r + 8, the lower and the upper half of k), B k x 8 columns in two, C 16 x 8 in four numbers
// (row r columns 2q, 2q + 1, row r + 8 the same). A sum over k does not care which k a word holds
// as long as A and B agree: so both sides load 16 contiguous bytes a lane and no data is shuffled.
#pragma once

#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace tandem {

// Weights: read once, so they need no place in L1.
__device__ __forceinline__ uint4 load_stream(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

__device__ __forceinline__ uint32_t word(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

struct MmaBf16 {
  using Sum = float;
  static __device__ __forceinline__ void run(float* c, uint32_t a0, uint32_t a1, uint32_t a2,
                                             uint32_t a3, uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
};

struct MmaF16 {
  using Sum = float;
  static __device__ __forceinline__ void run(float* c, uint32_t a0, uint32_t a1, uint32_t a2,
                                             uint32_t a3, uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
};

struct MmaS8 {
  using Sum = int;
  static __device__ __forceinline__ void run(int* c, uint32_t a0, uint32_t a1, uint32_t a2,
                                             uint32_t a3, uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
};

// Four E4M3 bytes as pairs of f16: elements 0 and 1, 2 and 3.
__device__ __forceinline__ void fp8_to_f16(uint32_t bytes, uint32_t& low, uint32_t& high) {
  asm("{\n.reg .b16 a, b;\nmov.b32 {a, b}, %2;\n"
      "cvt.rn.f16x2.e4m3x2 %0, a;\ncvt.rn.f16x2.e4m3x2 %1, b;\n}"
      : "=r"(low), "=r"(high)
      : "r"(bytes));
}

// The same as pairs of bf16: the bits moved to where bf16 has them, then the bias of the exponent.
__device__ __forceinline__ uint32_t fp8_pair_to_bf16(uint32_t upper_bytes) {
  const uint32_t bits = (upper_bytes & 0x80008000u) | (upper_bytes >> 4 & 0x07F007F0u);
  const uint32_t bias = 0x7B807B80u;  // 2^120 twice
  const __nv_bfloat162 pair = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&bits),
                                      *reinterpret_cast<const __nv_bfloat162*>(&bias));
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ __forceinline__ void fp8_to_bf16(uint32_t bytes, uint32_t& low, uint32_t& high) {
  low = fp8_pair_to_bf16(__byte_perm(bytes, 0, 0x1404));
  high = fp8_pair_to_bf16(__byte_perm(bytes, 0, 0x3424));
}

// k 16: A is rows r and r + 8 in one word each.
struct MmaS8K16 {
  static __device__ __forceinline__ void run(int* c, uint32_t a0, uint32_t a1, uint32_t b) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(b));
  }
};

__device__ __forceinline__ float warp_sum(float v) {
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(~0u, v, d);
  return v;
}

__device__ __forceinline__ float warp_max(float v) {
  for (int d = 16; d > 0; d /= 2) v = fmaxf(v, __shfl_xor_sync(~0u, v, d));
  return v;
}

// Of all threads of the cluster's blocks, each of whole warps; `shared` is 33 numbers at the same
// place in every block. Every thread of the cluster gets the result.
template <typename T, typename Warp>
__device__ T cluster_reduce(T v, T* shared, Warp warp_reduce, T neutral) {
  namespace cg = cooperative_groups;
  const auto cluster = cg::this_cluster();
  v = warp_reduce(v);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
  __syncthreads();
  v = threadIdx.x % 32 < blockDim.x / 32 ? shared[threadIdx.x % 32] : neutral;
  v = warp_reduce(v);
  const unsigned blocks = cluster.num_blocks();
  if (blocks == 1) return v;
  if (threadIdx.x == 0) shared[32] = v;
  cluster.sync();
  v = threadIdx.x % 32 < blocks ? *cluster.map_shared_rank(&shared[32], threadIdx.x % 32) : neutral;
  v = warp_reduce(v);
  cluster.sync();  // nobody leaves, or writes again, while others read
  return v;
}

}  // namespace tandem
