// 2:4 weights, bf16 and f16 against activations of the same type, int4 in groups against f16, int8
// with one scale a row against int8: the sparse A operand of mma.sp m16n8k32, of m16n8k64 for int8,
// tokens on its other side. The stream is that of stream.cuh, or of stream_shared.cuh for 2 to 16
// tokens.
//
// A piece: values, places [lane][2 words], and for int4 scales (PieceScales).
// Mma j has the channels 32 j ... 32 j + 31 in their order. The values kept of lane 4 r + q are
// those of the groups q and q + 4 of the mma's eight: 16-bit ones [j][lane][row r first, row r + 8
// first, r second, r + 8 second], int4 [lane][word j] as in nibbles.cuh. Mma 2 i takes the places
// from word i of the lanes 0 and 1 of each four, mma 2 i + 1 from lanes 2 and 3: four groups of row
// r in the lower half, of row r + 8 in the upper one.
//
// A prompt's tokens go through cuBLASLt, some rows of W spread to dense ones at a time.
#include <type_traits>

#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/nibbles.cuh"
#include "kernels/cuda/stream_shared.cuh"

namespace tandem {
namespace {

constexpr int64_t kDenseFrom = 129;

// kLanes: 0 takes the places from the lanes 0 and 1 of each four, 1 from 2 and 3.
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

__device__ __forceinline__ void mma_sparse(int* c, const uint4& a, const uint4& b,
                                           uint32_t places) {
  asm volatile(
      "mma.sp::ordered_metadata.sync.aligned.m16n8k64.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, "
      "{%4,%5,%6,%7}, {%8,%9,%10,%11}, {%0,%1,%2,%3}, %12, 0;"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y), "r"(b.z), "r"(b.w),
        "r"(places));
}

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

  template <int kTiles>
  static __device__ __forceinline__ void multiply(const uint8_t* piece, int lane, bool is_bf16,
                                                  const Tokens (&x)[kTiles],
                                                  float (&sums)[kTiles][4]) {
    Weights w;
    w.load(piece, lane);
    multiply(w, is_bf16, x, sums);
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

// 16-bit scales of a piece, [8][kGroups][rows r and r + 8].
template <int kGroups>
struct PieceScales {
  uint32_t pairs[kGroups];

  static __device__ __forceinline__ int offset(int row, int group) {
    return (row % 8 * kGroups + group) * 4 + row / 8 * 2;
  }
  __device__ __forceinline__ void load(const uint8_t* scales, int lane) {
    const auto* mine = reinterpret_cast<const uint32_t*>(scales + offset(lane / 4, 0));
#pragma unroll
    for (int g = 0; g < kGroups; ++g) pairs[g] = mine[g];
  }
  // Of the upper and of the lower row of a lane.
  __device__ __forceinline__ float upper(int group, bool is_bf16) const {
    return scale_to_float(pairs[group] & 0xFFFF, is_bf16);
  }
  __device__ __forceinline__ float lower(int group, bool is_bf16) const {
    return scale_to_float(pairs[group] >> 16, is_bf16);
  }
  static __device__ float at(const uint8_t* scales, int row, int group, bool is_bf16) {
    return scale_to_float(*reinterpret_cast<const uint16_t*>(scales + offset(row, group)), is_bf16);
  }
  // A row's scale `unit` of a piece, from the file's.
  static __device__ void pack(const uint8_t* from, int64_t stored, int64_t groups, int64_t piece,
                              int row, int unit, uint8_t* to) {
    const int64_t group = piece * kGroups + unit;
    *reinterpret_cast<uint16_t*>(to + offset(row, unit)) =
        stored >= 0 && group < groups
            ? reinterpret_cast<const uint16_t*>(from)[stored * groups + group]
            : 0;
  }
};

template <int kGroup>
struct Int4SparsePiece {
  using Sum = float;
  static constexpr int kChannels = kPieceChannels;
  static constexpr int kGroups = kPieceChannels / kGroup;
  static constexpr int kPlacesAt = 512, kScalesAt = kPlacesAt + 256;
  static constexpr int kBytes = kScalesAt + kTileRows * kGroups * 2;
  using Scales = PieceScales<kGroups>;
  static constexpr int kStagePieces = 16, kEach = 2;
  static constexpr ActType kType = ActType::f16;
  using Tokens = SparseTokens<32>;

  static __device__ __forceinline__ float scale(const uint8_t* piece, int row, int group,
                                                bool is_bf16) {
    return Scales::at(piece + kScalesAt, row, group, is_bf16);
  }

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

  template <int kTiles>
  static __device__ __forceinline__ void multiply(const uint8_t* piece, int lane, bool is_bf16,
                                                  const Tokens (&x)[kTiles],
                                                  float (&sums)[kTiles][4]) {
    Weights w;
    w.load(piece, lane);
    multiply(w, is_bf16, x, sums);
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
      const float s = scale(piece, row, 4 * lane / kGroup, is_bf16);
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
    return static_cast<float>(code) * scale(piece, row, k / kGroup, is_bf16);
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
    if (unit < kGroups) Scales::pack(p.scales, stored, p.groups, piece, row, unit, to + kScalesAt);
  }
};

// Sums are exact in int32. 256 channels: values [4 mma of 64][lane][16 bytes], as in an A fragment
// of dense bytes; places [lane][word of the mma]: lane 4 r + q has those of the channels 16 q ... of
// row r in the lower half, of row r + 8 in the upper one.
struct Int8SparsePiece {
  using Sum = int;
  static constexpr int kChannels = 2 * kPieceChannels;
  static constexpr int kPlacesAt = 2048;
  static constexpr int kBytes = kPlacesAt + 512;
  static constexpr int kStagePieces = 8, kEach = 1;
  static constexpr ActType kType = ActType::int8_token;
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
                                                  int (&sums)[kTiles][4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
        mma_sparse(sums[t], w.values[j], x[t].v[j], word(w.places, j));
    }
  }
  template <int kTiles>
  static __device__ __forceinline__ void multiply(const uint8_t* piece, int lane, bool is_bf16,
                                                  const Tokens (&x)[kTiles],
                                                  int (&sums)[kTiles][4]) {
    Weights w;
    w.load(piece, lane);
    multiply(w, is_bf16, x, sums);
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
    return static_cast<float>(static_cast<int8_t>(piece[value_offset(row, j, i)]));
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
  if (encoding.packing == Packing::int8_channel_24) return of(Int8SparsePiece{});
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
    const Stream p = stream_of<Piece>(w, x, y, ldy, accumulate);
    if (x.T > 1 && x.T <= 8 && launch_shared<Piece, 1>(context, p)) return;
    if (x.T > 8 && x.T <= 16 && launch_shared<Piece, 2>(context, p)) return;
    if constexpr (std::is_same_v<Piece, Int8SparsePiece>) {
      if (x.T > 0) launch_stream<Piece>(context, p);  // prompts too, in passes of 32 tokens
    } else {
      run_stream<Piece>(context, w, x, y, ldy, accumulate, kDenseFrom);
    }
  });
}

void gather_rows(const Context& context, const PackedWeight& w, const int32_t* rows, int64_t T,
                 float* out) {
  with_piece(w.encoding, [&](auto piece) {
    gather_stream_rows<decltype(piece)>(context, w, rows, T, out);
  });
}

}  // namespace

LinearKernel cuda_sparse_row(const char* name, Packing packing) {
  const bool is_int8 = packing == Packing::int8_channel_24;
  const ActType type = is_int8                       ? ActType::int8_token
                       : packing == Packing::bf16_24 ? ActType::bf16
                                                     : ActType::f16;
  return {name,    "cuda",      packing,
          type,    prepack,     run,
          nullptr, gather_rows, is_int8 ? nullptr : "from 129 on dense weights through cuBLASLt",
          true};
}

}  // namespace tandem
