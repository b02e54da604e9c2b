// What the pieces of 2:4 weights share, bf16, f16 and bytes of linear_sparse.cu and nibbles of
// linear_sparse_int4.cu: the sparse A operand of mma.sp, tokens on its other side. The stream is
// that of stream.cuh, or of stream_shared.cuh for 2 to 16 tokens.
//
// A piece of 128 channels: values, places [lane][2 words], and for int4 scales (PieceScales). Mma j
// has the channels 32 j ... 32 j + 31 in their order. The values kept of lane 4 r + q are those of
// the groups q and q + 4 of the mma's eight.
#pragma once

#include "kernels/cuda/sparse_mma.cuh"
#include "kernels/cuda/stream_shared.cuh"

namespace tandem {

constexpr int64_t kSparseDenseFrom = 129;  // tokens

// A lane's activations of one token, the four words of each of four mma; rows in memory end with a
// whole number of kBlock.
template <int kBlock>
struct SparseTokens {
  uint4 v[4];
  static constexpr int kSkew = 16;  // rows of tokens in shared memory begin in different banks
  static __device__ int token_of(int lane) { return lane % 8; }
  static __device__ int byte_of(int lane) { return lane / 8 * 16; }
  __device__ __forceinline__ void load(uint32_t address) {
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = load_matrices(address + 64 * i);
  }
  __device__ __forceinline__ void load(const uint16_t* channels, int q, int left) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto* p = reinterpret_cast<const uint32_t*>(channels + 32 * i + 2 * q);
      v[i] = uint4{};
      if (32 * i < left) v[i].x = p[0], v[i].y = p[4];
      if (32 * i + 32 - kBlock < left) v[i].z = p[8], v[i].w = p[12];
    }
  }
};

// Where the places of 16 channels of one row lie: the half `upper` of the channels of mma j.
__device__ __forceinline__ int places_offset(int row, int j, int upper) {
  return (row % 8 * 4 + j % 2 * 2 + upper) * 8 + j / 2 * 4 + row / 8 * 2;
}

__device__ __forceinline__ uint32_t stored_places(const StreamSource& p, int64_t stored,
                                                  int64_t group) {
  if (stored < 0 || 4 * group >= p.K) return 0x4;
  const uint8_t* row = p.data + stored * p.row_bytes + p.row_bytes - p.K / 8;
  return row[group / 2] >> (group % 2 * 4) & 15;
}

// The places of a row's 16 channels, in one number.
__device__ __forceinline__ void pack_places(const StreamSource& p, int64_t stored, int row,
                                            int64_t piece, int j, int upper, uint8_t* to) {
  uint32_t all = 0;
  for (int i = 0; i < 4; ++i) {
    all |= stored_places(p, stored, piece * (kPieceChannels / 4) + j * 8 + upper * 4 + i) << 4 * i;
  }
  *reinterpret_cast<uint16_t*>(to + places_offset(row, j, upper)) = static_cast<uint16_t>(all);
}

// The nibble of group g (of the piece's 32) of a row.
__device__ __forceinline__ uint32_t packed_places(const uint8_t* places, int row, int g) {
  const auto* p = places + places_offset(row, g / 8, g % 8 / 4);
  return *reinterpret_cast<const uint16_t*>(p) >> (g % 4 * 4) & 15;
}

// Four channels of which two are kept.
__device__ __forceinline__ uint2 spread(uint16_t first, uint16_t second, uint32_t places) {
  const uint64_t all = static_cast<uint64_t>(first) << (places & 3) * 16 |
                       static_cast<uint64_t>(second) << (places >> 2) * 16;
  return {static_cast<uint32_t>(all), static_cast<uint32_t>(all >> 32)};
}

// Prompts of weights of 16 bits and less go through cuBLASLt, some rows of W spread to dense ones
// at a time; those of bytes come in passes of 32 tokens.
template <typename Piece>
void run_sparse(const Context& context, const PackedWeight& w, const Activations& x, float* y,
                int64_t ldy, bool accumulate) {
  const Stream p = stream_of<Piece>(w, x, y, ldy, accumulate);
  if (x.T > 1 && x.T <= 8 && launch_shared<Piece, 1>(context, p)) return;
  if (x.T > 8 && x.T <= 16 && launch_shared<Piece, 2>(context, p)) return;
  if constexpr (Piece::kChannels > kPieceChannels) {
    if (x.T > 0) launch_stream<Piece>(context, p);
  } else {
    run_stream<Piece>(context, w, x, y, ldy, accumulate, kSparseDenseFrom);
  }
}

}  // namespace tandem
