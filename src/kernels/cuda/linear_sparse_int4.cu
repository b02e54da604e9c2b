// 2:4 int4 in groups against f16 activations (sparse_piece.cuh): one or two tokens by
// int4_sparse_few.cuh; for more codes become f16 exactly, a group's sum is f32, and the scale meets
// the sum. A piece's codes: [lane][word j] as in nibbles.cuh.
#include "kernels/cuda/int4_sparse_few.cuh"
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/nibbles.cuh"
#include "kernels/cuda/sparse_piece.cuh"

namespace tandem {
namespace {

template <int kGroup_>
struct Int4SparsePiece {
  using Sum = float;
  static constexpr int kChannels = kPieceChannels;
  static constexpr int kGroup = kGroup_;
  static constexpr int kGroups = kPieceChannels / kGroup;
  static constexpr int kPlacesAt = 512, kScalesAt = kPlacesAt + 256;
  static constexpr int kBytes = kScalesAt + kTileRows * kGroups * 2;
  using Scales = PieceScales<kGroups>;
  static constexpr int kStagePieces = 16, kEach = 2;
  static constexpr ActType kType = ActType::f16;
  using Tokens = SparseTokens<32>;

  struct Weights {
    uint4 codes;
    uint2 places;
    Scales scales;
    __device__ __forceinline__ void load(const uint8_t* piece, int lane) {
      codes = *reinterpret_cast<const uint4*>(piece + lane * 16);
      places = *reinterpret_cast<const uint2*>(piece + kPlacesAt + lane * 8);
      scales.load(piece + kScalesAt, lane);
    }
  };

  template <int kTiles>
  static __device__ __forceinline__ void multiply(const Weights& w, bool is_bf16,
                                                  const Tokens (&x)[kTiles],
                                                  float (&sums)[kTiles][4]) {
    constexpr int kMmas = kGroup / 32;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      float c[kTiles][4] = {};
#pragma unroll
      for (int m = 0; m < kMmas; ++m) {
        const int j = g * kMmas + m;
        uint32_t a[4];
        decode_nibbles(word(w.codes, j), a);
#pragma unroll
        for (int t = 0; t < kTiles; ++t) mma_sparse<false>(c[t], a, x[t].v[j], w.places, j);
      }
      const float s0 = w.scales.upper(g, is_bf16), s1 = w.scales.lower(g, is_bf16);
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[t][i] += c[t][i] * (i < 2 ? s0 : s1);
      }
    }
  }

  // Code i (0 or 1) of the two kept of group g (of the piece's 32) of a row, less 8.
  static __device__ __forceinline__ int kept(const uint8_t* piece, int row, int g, int i) {
    const int lane = row % 8 * 4 + g % 4;
    return (piece[lane * 16 + g / 8 * 4 + row / 8 + 2 * i] >> (g % 8 / 4 * 4) & 15) - 8;
  }
  static __device__ void decode(const uint8_t* piece, int lane, bool is_bf16, int left, int64_t ld,
                                uint16_t* out) {
    for (int row = 0; row < kTileRows; ++row) {
      if (4 * lane >= left) continue;
      const float s = Scales::at(piece + kScalesAt, row, 4 * lane / kGroup, is_bf16);
      const auto half = [&](int i) {
        return __half_as_ushort(__float2half_rn(static_cast<float>(kept(piece, row, lane, i)) * s));
      };
      *reinterpret_cast<uint2*>(out + row * ld + 4 * lane) =
          spread(half(0), half(1), packed_places(piece + kPlacesAt, row, lane));
    }
  }
  static __device__ float value(const uint8_t* piece, int row, int k, bool is_bf16) {
    const uint32_t places = packed_places(piece + kPlacesAt, row, k / 4), place = k % 4;
    if (place != (places & 3) && place != places >> 2) return 0.0f;
    const int code = kept(piece, row, k / 4, place == (places & 3) ? 0 : 1);
    return static_cast<float>(code) * Scales::at(piece + kScalesAt, row, k / kGroup, is_bf16);
  }
  static __device__ int stored_code(const StreamSource& p, int64_t stored, int64_t i) {
    if (stored < 0 || 2 * i >= p.K) return 8;
    return p.data[stored * p.row_bytes + i / 2] >> (i % 2 * 4) & 15;
  }
  static __device__ void pack(const StreamSource& p, int64_t stored, int row, int64_t piece, int j,
                              int q, uint8_t* to) {
    const int64_t first = piece * (kPieceChannels / 2) + j * 16 + q * 2;
    uint8_t* bytes = to + (row % 8 * 4 + q) * 16 + j * 4 + row / 8;
    for (int i = 0; i < 2; ++i) {
      bytes[2 * i] = static_cast<uint8_t>(stored_code(p, stored, first + i) |
                                          stored_code(p, stored, first + 8 + i) << 4);
    }
    if (q < 2) pack_places(p, stored, row, piece, j, q, to + kPlacesAt);
    const int unit = j * 4 + q;
    if (unit < kGroups) Scales::pack(p.scales, stored, p.groups, piece * kGroups + unit, row, unit,
                                     to + kScalesAt);
  }
};

// Calls `of` with the piece of the encoding's groups.
template <typename Of>
auto with_piece(const Encoding& encoding, Of of) {
  if (encoding.group != 32 && encoding.group != 64 && encoding.group != 128) {
    cuda_refuse("cuda runs int4 2:4 in groups of 32, 64 and 128; found groups of", encoding.group);
  }
  if (encoding.scale_type == ScaleType::f32) {
    cuda_refuse("cuda runs int4 2:4 with scales of 16 bits; found bits:", 32);
  }
  return encoding.group == 32   ? of(Int4SparsePiece<32>{})
         : encoding.group == 64 ? of(Int4SparsePiece<64>{})
                                : of(Int4SparsePiece<128>{});
}

PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
  return with_piece(parts.front().encoding, [&](auto piece) {
    return prepack_stream<decltype(piece)>(context, parts, arena);
  });
}

void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
         bool accumulate) {
  with_piece(w.encoding, [&](auto piece) {
    using Piece = decltype(piece);
    using Few16 = Int4SparseFew<Piece::kGroup, false>;
    if (x.T == 0 || x.T > Few16::kMostTokens)
      return run_sparse<Piece>(context, w, x, y, ldy, accumulate);
    const Stream p = stream_of<Piece>(w, x, y, ldy, accumulate);
    if (p.scales_are_bf16) {
      run_few(context, few_of<Int4SparseFew<Piece::kGroup, true>>(p));
    } else {
      run_few(context, few_of<Few16>(p));
    }
  });
}

void gather_rows(const Context& context, const PackedWeight& w, const int32_t* rows, int64_t T,
                 float* out) {
  with_piece(w.encoding,
             [&](auto piece) { gather_stream_rows<decltype(piece)>(context, w, rows, T, out); });
}

}  // namespace

LinearKernel cuda_sparse_int4_row(const char* name) {
  return {name,         "cuda",      Packing::int4_group_24,
          ActType::f16, prepack,     run,
          nullptr,      gather_rows, "from 129 on dense weights through cuBLASLt",
          true};
}

}  // namespace tandem
