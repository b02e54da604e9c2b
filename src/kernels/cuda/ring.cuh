// Weights on their way from memory to a block's tensor cores: a ring of stages in shared memory,
// filled by bulk copies that one warp issues and emptied by the others. The copies need no
// registers, run across the seams between tiles, and start before the kernel's inputs are there.
#pragma once

#include <cstdint>

namespace tandem {

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ void init_barrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals));
}

template <int kStages>
struct Ring {
  uint64_t full[kStages], empty[kStages];  // mbarriers

  // By every thread of the block, once; `readers` warps will empty it.
  __device__ __forceinline__ void init(int readers) {
    if (threadIdx.x == 0) {
      for (int s = 0; s < kStages; ++s) {
        init_barrier(&full[s], 1);
        init_barrier(&empty[s], readers);
      }
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
  }
};

// One side's place in the ring.
template <int kStages>
struct RingCursor {
  int stage = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) stage = 0, phase ^= 1;
  }
};

__device__ __forceinline__ void wait_barrier(uint64_t* barrier, uint32_t phase) {
  asm volatile(
      "{\n.reg .pred done;\nretry:\nmbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n@done bra "
      "arrived;\n"
      "bra retry;\narrived:\n}" ::"r"(shared_address(barrier)),
      "r"(phase)
      : "memory");
}

__device__ __forceinline__ void arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Announces the bytes of the copies to come.
__device__ __forceinline__ void expect_bytes(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(bytes)
               : "memory");
}

// What this thread has written to shared memory comes before the copies that later go there.
__device__ __forceinline__ void fence_before_copies() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Both addresses and the size are multiples of 16.
__device__ __forceinline__ void bulk_copy(void* to, const void* from, uint32_t bytes,
                                          uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}

// Blocks for `tiles` equal pieces of work when `slots` blocks run at once: as many pieces for each
// as can be.
inline unsigned balanced_blocks(int64_t tiles, int64_t slots) {
  const int64_t each = (tiles + slots - 1) / slots;
  return static_cast<unsigned>((tiles + each - 1) / each);
}

}  // namespace tandem
