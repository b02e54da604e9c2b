// Integers with zero points in groups: int2_zero, int3_zero, int8_zero. The linear itself is that
// of blocks.cuh; a block's minimum is what its zero point makes of its scale.
//
// Pieces of 16 rows x 128 channels (2 and 3 bits) or x 64 (8 bits). Lane 4 r + q has of each block
// of 32 channels the channels 8 q ... 8 q + 7 of rows r and r + 8, in two words, `low` and `high`.
//   8 bits  [rows 0-7, 8-15][lane][16 bytes]: codes less 128
//   2 bits  [lane][rows r, r + 8][2 words]: two blocks a word, of each byte a field
//   3 bits  the lower two bits so, then the upper ones [lane][rows r, r + 8]: four blocks a word
// Beside: scales [N / 16][groups][16 rows], 16 bits each, and zero points, bytes in the same order.
#include "kernels/cuda/blocks.cuh"
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/piece.cuh"

namespace tandem {
namespace {

constexpr int kUpperAt = 512;  // of a piece of 3 bits, the upper ones

// kBits: of a code. kScales: groups that a piece may meet.
template <int kBits_, int kScales_>
struct CodesPiece {
  static constexpr int kBits = kBits_, kScales = kScales_;
  static constexpr int kChannels = kBits == 8 ? 64 : 128;
  static constexpr int kBlocks = kChannels / 32;
  static constexpr int kCodeBytes = kTileRows * kChannels * kBits / 8;
  static constexpr int kMiddle = kBits == 8 ? 128 : 0;  // what is missing from a code as it lies
  static constexpr bool kHalves = false, kHasMin = true;
  uint4 codes[kBits == 8 ? 2 : 1];
  uint2 upper;
  uint16_t scales[2][kScales];  // as stored
  uint8_t zeros[2][kScales];
  bool scales_are_bf16;

  __device__ __forceinline__ void load(const Blocks& p, int64_t tile, int piece, int lane) {
    const uint8_t* from = p.w + (tile * p.pieces + piece) * kCodeBytes;
    codes[0] = load_stream(from + lane * 16);
    if constexpr (kBits == 8) codes[1] = load_stream(from + 512 + lane * 16);
    if constexpr (kBits == 3) upper = *reinterpret_cast<const uint2*>(from + kUpperAt + lane * 8);
    scales_are_bf16 = p.scales_are_bf16;
#pragma unroll
    for (int s = 0; s < kScales; ++s) {
      const int k = piece * kChannels + s * (kChannels / kScales);
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const int64_t at = (tile * p.groups + k / p.group) * kTileRows + lane / 4 + 8 * row;
        const bool exists = k < p.K;
        scales[row][s] = exists ? reinterpret_cast<const uint16_t*>(p.beside)[at] : uint16_t{0};
        zeros[row][s] = exists ? p.zeros[at] : uint8_t{0};
      }
    }
  }
  static __device__ __forceinline__ int scale_of(int block) { return block * kScales / kBlocks; }
  __device__ __forceinline__ float scale(int row, int block, int) const {
    return scale_to_float(scales[row][scale_of(block)], scales_are_bf16);
  }
  __device__ __forceinline__ int zero(int row, int block) const {
    return zeros[row][scale_of(block)] - kMiddle;
  }
  __device__ __forceinline__ float min(int row, int block) const {
    return -static_cast<float>(zero(row, block)) * scale(row, block, 0);
  }
  __device__ __forceinline__ uint32_t field(int row, int block, int high) const {
    if constexpr (kBits == 8) {
      return word(codes[row], 2 * block + high);
    } else {
      const uint32_t lower =
          word(codes[0], 2 * row + block / 2) >> (4 * (block % 2) + 2 * high) & 0x03030303;
      if constexpr (kBits == 2) return lower;
      const uint32_t bits = row == 0 ? upper.x : upper.y;
      return lower | (bits >> (2 * block + high) & 0x01010101) << 2;
    }
  }
  __device__ __forceinline__ uint32_t low(int row, int block) const { return field(row, block, 0); }
  __device__ __forceinline__ uint32_t high(int row, int block) const {
    return field(row, block, 1);
  }
  static __device__ __forceinline__ int channel(int q, int word) { return 8 * q + 4 * word; }
  __device__ __forceinline__ float value(int code, int row, int block, int) const {
    return static_cast<float>(code - zero(row, block)) * scale(row, block, 0);
  }

  static __device__ uint32_t stored_code(const uint8_t* row, int K, int k) {
    if (row == nullptr || k >= K) return 0;
    const int bit = k * kBits, in_byte = bit % 8;
    uint32_t bits = row[bit / 8];
    if (in_byte + kBits > 8) bits |= static_cast<uint32_t>(row[bit / 8 + 1]) << 8;
    return bits >> in_byte & ((1u << kBits) - 1);
  }
  // Lane q's share of a row of a piece.
  static __device__ void pack(const uint8_t* from, int K, int piece, int row, int q, uint8_t* to) {
    const int lane = row % 8 * 4 + q, first = piece * kChannels + q * 8;
    uint32_t lower[4] = {}, uppers = 0;
    for (int i = 0; i < kBlocks * 8; ++i) {
      const int block = i / 8, high = i % 8 / 4, byte = i % 4 * 8;
      const uint32_t code = stored_code(from, K, first + block * 32 + i % 8);
      if constexpr (kBits == 8) {
        lower[2 * block + high] |= (code ^ 0x80) << byte;
      } else {
        lower[block / 2] |= (code & 3) << (byte + 4 * (block % 2) + 2 * high);
        uppers |= code >> 2 << (byte + 2 * block + high);
      }
    }
    if constexpr (kBits == 8) {
      *reinterpret_cast<uint4*>(to + row / 8 * 512 + lane * 16) = {lower[0], lower[1], lower[2],
                                                                   lower[3]};
    } else {
      *reinterpret_cast<uint2*>(to + lane * 16 + row / 8 * 8) = {lower[0], lower[1]};
      if constexpr (kBits == 3)
        *reinterpret_cast<uint32_t*>(to + kUpperAt + lane * 8 + row / 8 * 4) = uppers;
    }
  }
};

struct PackCodes {
  const uint8_t* codes;    // canonical rows
  const uint16_t* scales;  // canonical, [N, groups]
  const uint8_t* zeros;
  int64_t row_bytes;
  int N, K, groups, interleaved_head, first_row, pieces;
  uint8_t* to;
  uint16_t* to_scales;
  uint8_t* to_zeros;
};

// A block of threads a row; rows beyond the part's last are zero.
template <typename P>
__global__ void pack_codes_rows(const PackCodes p) {
  const bool exists = static_cast<int>(blockIdx.x) < p.N;
  const int64_t stored = exists ? stored_row(blockIdx.x, p.interleaved_head) : 0;
  const int64_t n = p.first_row + static_cast<int64_t>(blockIdx.x), tile = n / kTileRows;
  const int row = static_cast<int>(n % kTileRows);
  const uint8_t* from = exists ? p.codes + stored * p.row_bytes : nullptr;
  for (int i = threadIdx.x; i < p.pieces * 4; i += blockDim.x)
    P::pack(from, p.K, i / 4, row, i % 4, p.to + (tile * p.pieces + i / 4) * P::kCodeBytes);
  for (int g = threadIdx.x; g < p.groups; g += blockDim.x) {
    const int64_t at = (tile * p.groups + g) * kTileRows + row;
    p.to_scales[at] = exists ? p.scales[stored * p.groups + g] : uint16_t{0};
    p.to_zeros[at] = exists ? p.zeros[stored * p.groups + g] : uint8_t{0};
  }
}

int64_t numbers_beside(const PackedWeight& w) {
  return (w.N + kTileRows - 1) / kTileRows * kTileRows * w.encoding.groups_per_row(w.K);
}

template <typename P>
PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
  CudaDevice& device = cuda_device(context);
  PackedWeight packed;
  packed.encoding = parts.front().encoding;
  packed.K = parts.front().K;
  for (const Weight& part : parts) packed.N += part.N;
  packed.read_bytes = total_bytes(parts);
  const uint64_t codes = block_codes_bytes<P>(packed.N, packed.K);
  const int64_t numbers = numbers_beside(packed);
  packed.data_bytes = codes + static_cast<uint64_t>(numbers) * 3;
  packed.columns = upload_columns(device, parts.front(), arena);
  std::byte* data = arena.take(packed.data_bytes);
  packed.data = data;
  auto* to = reinterpret_cast<uint8_t*>(data);
  const int64_t padded = (packed.N + kTileRows - 1) / kTileRows * kTileRows;
  int64_t n = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Weight& part = parts[i];
    const CanonicalBytes canonical = upload_canonical(device, part);
    const PackCodes pack{canonical.data,
                         reinterpret_cast<const uint16_t*>(canonical.scales),
                         canonical.zeros,
                         static_cast<int64_t>(part.row_bytes()),
                         static_cast<int>(part.N),
                         static_cast<int>(part.K),
                         static_cast<int>(part.encoding.groups_per_row(part.K)),
                         static_cast<int>(part.interleaved_head),
                         static_cast<int>(n),
                         block_pieces<P>(part.K),
                         to,
                         reinterpret_cast<uint16_t*>(to + codes),
                         to + codes + 2 * numbers};
    const int64_t rows = i + 1 == parts.size() ? padded - n : part.N;
    pack_codes_rows<P><<<static_cast<unsigned>(rows), 128, 0, device.stream()>>>(pack);
    CUDA_CHECK(cudaGetLastError());
    n += part.N;
  }
  device.synchronize();
  return packed;
}

template <typename P>
Blocks codes_of(const PackedWeight& w) {
  Blocks p = blocks_of<P>(w);
  p.zeros = p.beside + 2 * numbers_beside(w);
  p.groups = static_cast<int>(w.encoding.groups_per_row(w.K));
  p.group = static_cast<int>(w.encoding.group);
  p.scales_are_bf16 = w.encoding.scale_type == ScaleType::bf16;
  return p;
}

// Calls `of` with the piece of the encoding's groups.
template <int kBits, typename Of>
auto with_piece(const Encoding& encoding, Of of) {
  constexpr int kChannels = CodesPiece<kBits, 1>::kChannels;
  if (encoding.scale_type == ScaleType::f32) {
    cuda_refuse("cuda runs integers with zero points with scales of 16 bits; found bits:", 32);
  }
  return encoding.group % kChannels == 0 ? of(CodesPiece<kBits, 1>{})
                                         : of(CodesPiece<kBits, kChannels / 32>{});
}

template <int kBits>
PackedWeight prepack_codes(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
  return with_piece<kBits>(parts.front().encoding, [&](auto piece) {
    return prepack<decltype(piece)>(context, parts, arena);
  });
}

template <int kBits>
void run_codes(const Context& context, const PackedWeight& w, const Activations& x, float* y,
               int64_t ldy, bool accumulate) {
  with_piece<kBits>(w.encoding, [&](auto piece) {
    using P = decltype(piece);
    run_blocks<P>(context, codes_of<P>(w), w, x, y, ldy, accumulate);
  });
}

template <int kBits>
void gather_codes(const Context& context, const PackedWeight& w, const int32_t* rows, int64_t T,
                  float* out) {
  with_piece<kBits>(w.encoding, [&](auto piece) {
    using P = decltype(piece);
    gather_block_rows<P>(context, codes_of<P>(w), w, rows, T, out);
  });
}

template <int kBits>
LinearKernel codes_row(const char* name, Packing packing) {
  return {name,
          "cuda",
          packing,
          ActType::int8_block,
          prepack_codes<kBits>,
          run_codes<kBits>,
          nullptr,
          gather_codes<kBits>,
          kBlocksManyTokens};
}

}  // namespace

LinearKernel cuda_codes_row(const char* name, Packing packing) {
  return packing == Packing::int2_zero   ? codes_row<2>(name, packing)
         : packing == Packing::int3_zero ? codes_row<3>(name, packing)
                                         : codes_row<8>(name, packing);
}

}  // namespace tandem
