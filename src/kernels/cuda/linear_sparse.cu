// 2:4 weights, bf16 and f16 against activations of the same type, int8 and E4M3 with one scale a
// row against such activations (sparse_piece.cuh).
//
// A piece's values of 16 bits: [j][lane][row r first, row r + 8 first, r second, r + 8 second].
#include <cuda_fp8.h>

#include <type_traits>

#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/sparse_piece.cuh"

namespace tandem {
namespace {

template <bool kIsBf16>
struct HalfPiece {
  using Sum = float;
  static constexpr int kChannels = kPieceChannels;
  static constexpr int kPlacesAt = 2048;
  static constexpr int kBytes = kPlacesAt + 256;
  static constexpr int kStagePieces = 8, kEach = 1;
  static constexpr ActType kType = kIsBf16 ? ActType::bf16 : ActType::f16;
  using Tokens = SparseTokens<32>;

  struct Weights {
    uint4 values[4];
    uint2 places;
    __device__ __forceinline__ void load(const uint8_t* piece, int lane) {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        values[j] = *reinterpret_cast<const uint4*>(piece + j * 512 + lane * 16);
      places = *reinterpret_cast<const uint2*>(piece + kPlacesAt + lane * 8);
    }
  };

  template <int kTiles>
  static __device__ __forceinline__ void multiply(const Weights& w, bool, const Tokens (&x)[kTiles],
                                                  float (&sums)[kTiles][4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t a[4] = {w.values[j].x, w.values[j].y, w.values[j].z, w.values[j].w};
#pragma unroll
      for (int t = 0; t < kTiles; ++t) mma_sparse<kIsBf16>(sums[t], a, x[t].v[j], w.places, j);
    }
  }

  // The two values kept of group g (of the piece's 32) of a row.
  static __device__ __forceinline__ uint32_t pair(const uint8_t* piece, int row, int g) {
    const int lane = row % 8 * 4 + g % 4;
    return *reinterpret_cast<const uint32_t*>(piece + g / 8 * 512 + lane * 16 + g % 8 / 4 * 8 +
                                              row / 8 * 4);
  }
  static __device__ void decode(const uint8_t* piece, int lane, bool, int left, int64_t ld,
                                uint16_t* out) {
    // Neighbouring lanes have neighbouring groups of a row.
    for (int row = 0; row < kTileRows; ++row) {
      if (4 * lane >= left) continue;
      const uint32_t two = pair(piece, row, lane);
      *reinterpret_cast<uint2*>(out + row * ld + 4 * lane) =
          spread(static_cast<uint16_t>(two), static_cast<uint16_t>(two >> 16),
                 packed_places(piece + kPlacesAt, row, lane));
    }
  }
  static __device__ float value(const uint8_t* piece, int row, int k, bool) {
    const uint32_t places = packed_places(piece + kPlacesAt, row, k / 4);
    const uint32_t two = pair(piece, row, k / 4);
    const uint32_t place = k % 4;
    if (place != (places & 3) && place != places >> 2) return 0.0f;
    return scale_to_float(place == (places & 3) ? two & 0xFFFF : two >> 16, kIsBf16);
  }
  static __device__ void pack(const StreamSource& p, int64_t stored, int row, int64_t piece, int j,
                              int q, uint8_t* to) {
    for (int second = 0; second < 2; ++second) {
      const int64_t kept = piece * (kPieceChannels / 2) + j * 16 + second * 8 + q * 2;
      const bool exists = stored >= 0 && 2 * kept < p.K;
      const uint8_t* from = p.data + (exists ? stored * p.row_bytes + kept * 2 : 0);
      uint8_t* two = to + j * 512 + (row % 8 * 4 + q) * 16 + second * 8 + row / 8 * 4;
      for (int i = 0; i < 4; ++i) two[i] = exists ? from[i] : 0;
    }
    if (q < 2) pack_places(p, stored, row, piece, j, q, to + kPlacesAt);
  }
};

// int8, whose sums are exact in int32, or E4M3. 256 channels: values [4 mma of 64][lane][16 bytes],
// as in an A fragment of dense bytes; places [lane][word of the mma], as mma_sparse_bytes wants
// them.
template <bool kIsFp8>
struct ByteSparsePiece {
  using Sum = std::conditional_t<kIsFp8, float, int>;
  static constexpr int kChannels = 2 * kPieceChannels;
  static constexpr int kPlacesAt = 2048;
  static constexpr int kBytes = kPlacesAt + 512;
  static constexpr int kStagePieces = 8, kEach = 1;
  static constexpr ActType kType = kIsFp8 ? ActType::fp8_token : ActType::int8_token;
  using Tokens = SparseTokens<16>;

  struct Weights {
    uint4 values[4], places;
    __device__ __forceinline__ void load(const uint8_t* piece, int lane) {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        values[j] = *reinterpret_cast<const uint4*>(piece + j * 512 + lane * 16);
      places = *reinterpret_cast<const uint4*>(piece + kPlacesAt + lane * 16);
    }
  };

  template <int kTiles>
  static __device__ __forceinline__ void multiply(const Weights& w, bool, const Tokens (&x)[kTiles],
                                                  Sum (&sums)[kTiles][4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
        mma_sparse_bytes(sums[t], w.values[j].x, w.values[j].y, w.values[j].z, w.values[j].w,
                         x[t].v[j], word(w.places, j));
    }
  }

  // Where value i of the 32 kept of a row and mma stands.
  static __device__ __forceinline__ int value_offset(int row, int j, int i) {
    return j * 512 + (row % 8 * 4 + i % 16 / 4) * 16 + i / 16 * 8 + row / 8 * 4 + i % 4;
  }
  // Where the places of the groups 2 b and 2 b + 1 of its 16 stand.
  static __device__ __forceinline__ int places_byte(int row, int j, int b) {
    const int lane = b / 4 * 2 + row / 8, byte = b % 4;
    return kPlacesAt + (row % 8 * 4 + lane) * 16 + j * 4 + byte;
  }
  static __device__ float value(const uint8_t* piece, int row, int k, bool) {
    const int j = k / 64, group = k % 64 / 4, place = k % 4;
    const int places = piece[places_byte(row, j, group / 2)] >> (group % 2 * 4) & 15;
    if (place != (places & 3) && place != places >> 2) return 0.0f;
    const int i = group * 2 + (place == (places & 3) ? 0 : 1);
    const uint8_t code = piece[value_offset(row, j, i)];
    if constexpr (kIsFp8) return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
    return static_cast<float>(static_cast<int8_t>(code));
  }
  static __device__ void pack(const StreamSource& p, int64_t stored, int row, int64_t piece, int j,
                              int q, uint8_t* to) {
    const uint8_t* from = p.data + max(stored, int64_t{0}) * p.row_bytes;
    const int64_t first = piece * kChannels + j * 64 + q * 16;  // eight values, four groups
    for (int i = 0; i < 8; ++i) {
      const int64_t kept = first / 2 + i;
      to[value_offset(row, j, q * 8 + i)] = stored >= 0 && 2 * kept < p.K ? from[kept] : 0;
    }
    for (int i = 0; i < 2; ++i) {
      const int64_t pair = first / 8 + i;
      to[places_byte(row, j, q * 2 + i)] =
          stored >= 0 && 8 * pair < p.K ? from[p.K / 2 + pair] : 0x44;
    }
  }
};

// Calls `of` with the piece of the encoding.
template <typename Of>
auto with_piece(const Encoding& encoding, Of of) {
  if (encoding.packing == Packing::bf16_24) return of(HalfPiece<true>{});
  if (encoding.packing == Packing::f16_24) return of(HalfPiece<false>{});
  if (encoding.packing == Packing::int8_channel_24) return of(ByteSparsePiece<false>{});
  return of(ByteSparsePiece<true>{});
}

PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
  return with_piece(parts.front().encoding, [&](auto piece) {
    return prepack_stream<decltype(piece)>(context, parts, arena);
  });
}

void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
         bool accumulate) {
  with_piece(w.encoding,
             [&](auto piece) { run_sparse<decltype(piece)>(context, w, x, y, ldy, accumulate); });
}

void gather_rows(const Context& context, const PackedWeight& w, const int32_t* rows, int64_t T,
                 float* out) {
  with_piece(w.encoding,
             [&](auto piece) { gather_stream_rows<decltype(piece)>(context, w, rows, T, out); });
}

}  // namespace

LinearKernel cuda_sparse_row(const char* name, Packing packing) {
  const ActType type = packing == Packing::int8_channel_24  ? ActType::int8_token
                       : packing == Packing::fp8_channel_24 ? ActType::fp8_token
                       : packing == Packing::bf16_24        ? ActType::bf16
                                                            : ActType::f16;
  const bool has_bytes = type == ActType::int8_token || type == ActType::fp8_token;
  return {name,    "cuda",      packing,
          type,    prepack,     run,
          nullptr, gather_rows, has_bytes ? nullptr : "from 129 on dense weights through cuBLASLt",
          true};
}

}  // namespace tandem
