// What the linear kernels share: the sum of a block's warps over a 16 x 8 tile, and the reading of
// weights in their files' encodings.
#pragma once

#include <cstdint>

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/warp.cuh"
#include "tensor/weight.h"

namespace tandem {

constexpr int kTileRows = 16;    // rows of a weight, the A side of an mma
constexpr int kTileTokens8 = 8;  // tokens, its B side

inline size_t tile_bytes(int warps) {
  return static_cast<size_t>(warps) * kTileTokens8 * kTileRows * 4;
}

// Adds the C fragments of all warps, in the order of the warps, and calls store(token, row, sum)
// once for each of the tile's elements. `shared` has tile_bytes(warps). Every thread of the block's
// first `warps` must call it.
template <typename Sum, typename Store>
__device__ __forceinline__ void sum_tile(const Sum (&c)[4], Sum* shared, int warps, Store store) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int r = lane / 4, q = lane % 4;
  constexpr int kElements = kTileTokens8 * kTileRows;
  const auto meet = [&] { asm volatile("bar.sync 1, %0;" ::"r"(warps * 32) : "memory"); };
  meet();
  Sum* mine = shared + warp * kElements;
  mine[(2 * q) * kTileRows + r] = c[0];
  mine[(2 * q + 1) * kTileRows + r] = c[1];
  mine[(2 * q) * kTileRows + r + 8] = c[2];
  mine[(2 * q + 1) * kTileRows + r + 8] = c[3];
  meet();
  for (int i = threadIdx.x; i < kElements; i += warps * 32) {
    Sum sum = 0;
    for (int w = 0; w < warps; ++w) sum += shared[w * kElements + i];
    store(i / kTileRows, i % kTileRows, sum);
  }
}

// A weight's planes as its file has them, in the device's scratch memory until the next weight
// comes.
struct CanonicalBytes {
  const uint8_t* data;
  const uint8_t* scales;  // null: none
  const uint8_t* zeros;   // null: none
};

inline CanonicalBytes upload_canonical(CudaDevice& device, const Weight& weight) {
  const size_t scales_at = (weight.data_bytes() + 15) / 16 * 16;
  const size_t zeros_at = scales_at + (weight.scales_bytes() + 15) / 16 * 16;
  std::byte* bytes = device.scratch(zeros_at + weight.zeros_bytes());
  device.upload(bytes, weight.data, weight.data_bytes());
  if (weight.scales != nullptr)
    device.upload(bytes + scales_at, weight.scales, weight.scales_bytes());
  if (weight.zeros != nullptr) device.upload(bytes + zeros_at, weight.zeros, weight.zeros_bytes());
  const auto* p = reinterpret_cast<const uint8_t*>(bytes);
  return {p, weight.scales != nullptr ? p + scales_at : nullptr,
          weight.zeros != nullptr ? p + zeros_at : nullptr};
}

// Weight::columns as the ops before a linear read it; null where there are none.
inline const int32_t* upload_columns(CudaDevice& device, const Weight& weight, Arena& arena) {
  if (weight.columns == nullptr) return nullptr;
  std::byte* columns = arena.take(weight.columns_bytes());
  device.upload(columns, weight.columns, weight.columns_bytes());
  return reinterpret_cast<const int32_t*>(columns);
}

// Weight::stored_row on the device.
__device__ inline int64_t stored_row(int64_t n, int interleaved_head) {
  if (interleaved_head == 0) return n;
  const int64_t head = n / interleaved_head, r = n % interleaved_head, half = interleaved_head / 2;
  return head * interleaved_head + (r < half ? 2 * r : 2 * (r - half) + 1);
}

__device__ inline float decode_scale(const uint8_t* p, ScaleType type) {
  if (type == ScaleType::f32) return *reinterpret_cast<const float*>(p);
  if (type == ScaleType::f16) return __half2float(*reinterpret_cast<const __half*>(p));
  return __bfloat162float(*reinterpret_cast<const __nv_bfloat16*>(p));
}

}  // namespace tandem
