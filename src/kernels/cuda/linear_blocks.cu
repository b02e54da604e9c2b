// GGUF's encodings in blocks of 32: q4_0, q4_1, q8_0. The linear itself is that of blocks.cuh.
//
// Pieces of 16 rows x 128 channels (4 bits) or x 64 (8 bits), 1024 bytes: [rows 0-7, 8-15][lane][16
// bytes]. Lane 4 r + q has of each block of 32 channels the channels 8 q ... 8 q + 7; at 4 bits a word
// is one block, channels 8 q + i in its lower nibbles, 8 q + 4 + i in its upper ones. Beside: scales
// (and minima, interleaved), 16 bits each, [16 rows][blocks].
#include "kernels/cuda/blocks.cuh"
#include "kernels/cuda/linear_rows.h"

namespace tandem {
namespace {

__device__ __forceinline__ float half_to_float(uint32_t bits) {
  return __half2float(__ushort_as_half(static_cast<uint16_t>(bits)));
}

// The 16-bit numbers beside one row of a piece, in one load.
template <int kBytes>
__device__ __forceinline__ void load_numbers(uint32_t (&out)[kBytes / 4], const uint8_t* p) {
  if constexpr (kBytes == 16) {
    const uint4 v = *reinterpret_cast<const uint4*>(p);
    out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
  } else if constexpr (kBytes == 8) {
    const uint2 v = *reinterpret_cast<const uint2*>(p);
    out[0] = v.x, out[1] = v.y;
  } else {
    out[0] = *reinterpret_cast<const uint32_t*>(p);
  }
}

// Codes and numbers as one lane holds them. kNumbers: of a block, the scale or the scale and the
// minimum.
template <int kBits, int kNumbers>
struct PieceOf32 {
  static constexpr int kChannels = kBits == 4 ? 128 : 64;
  static constexpr int kBlocks = kChannels / 32;
  static constexpr int kCodeBytes = 1024;
  static constexpr int kRowNumbers = kBlocks * kNumbers * 2;  // bytes
  static constexpr int kBesideBytes = kTileRows * kRowNumbers;
  static constexpr int kHeader = 2 * kNumbers;  // of a block in the file
  static constexpr int kFileBlock = kHeader + 4 * kBits;
  static constexpr bool kHalves = false;
  uint4 codes[2];  // rows r, r + 8
  uint32_t numbers[2][kRowNumbers / 4];

  __device__ __forceinline__ void load(const Blocks& p, int64_t tile, int piece, int lane) {
    const int64_t index = tile * p.pieces + piece;
    const uint8_t* from = p.w + index * kCodeBytes + lane * 16;
    codes[0] = load_stream(from);
    codes[1] = load_stream(from + 512);
    const uint8_t* beside = p.beside + (index * kTileRows + lane / 4) * kRowNumbers;
    load_numbers<kRowNumbers>(numbers[0], beside);
    load_numbers<kRowNumbers>(numbers[1], beside + 8 * kRowNumbers);
  }
  __device__ __forceinline__ float number(int row, int i) const {
    return half_to_float(numbers[row][i / 2] >> (i % 2 * 16) & 0xFFFF);
  }
  __device__ __forceinline__ float scale(int row, int block, int) const {
    return number(row, block * kNumbers);
  }
  __device__ __forceinline__ uint32_t low(int row, int block) const {
    return kBits == 4 ? word(codes[row], block) & 0x0F0F0F0F : word(codes[row], 2 * block);
  }
  __device__ __forceinline__ uint32_t high(int row, int block) const {
    return kBits == 4 ? word(codes[row], block) >> 4 & 0x0F0F0F0F : word(codes[row], 2 * block + 1);
  }
  static __device__ __forceinline__ int channel(int q, int word) { return 8 * q + 4 * word; }

  static __device__ int stored_code(const uint8_t* row, int K, int k) {
    if (row == nullptr || k >= K) return 0;
    const uint8_t* codes_of_block = row + k / 32 * kFileBlock + kHeader;
    const int j = k % 32;
    return kBits == 8 ? codes_of_block[j] : codes_of_block[j % 16] >> (j / 16 * 4) & 15;
  }
  static __device__ void pack(const uint8_t* from, int K, int piece, int row, int q, uint8_t* to,
                              uint8_t* beside) {
    uint8_t* bytes = to + row / 8 * 512 + (row % 8 * 4 + q) * 16;
    const int first = piece * kChannels + q * 8;
    for (int at = 0; at < 16; ++at) {
      const int k = first + (kBits == 4 ? at / 4 * 32 + at % 4 : at / 8 * 32 + at % 8);
      const int upper = kBits == 4 ? stored_code(from, K, k + 4) << 4 : 0;
      bytes[at] = static_cast<uint8_t>(stored_code(from, K, k) | upper);
    }
    if (q >= kBlocks) return;
    const int block = piece * kBlocks + q;
    for (int i = 0; i < kHeader; ++i) {
      beside[row * kRowNumbers + q * kHeader + i] =
          from != nullptr && block * 32 < K ? from[block * kFileBlock + i] : 0;
    }
  }
};

struct Q4_0 : PieceOf32<4, 1> {
  static constexpr bool kHasMin = true;  // codes are unsigned, 8 is zero
  __device__ __forceinline__ float min(int row, int block) const {
    return -8.0f * scale(row, block, 0);
  }
  __device__ __forceinline__ float value(int code, int row, int block, int) const {
    return static_cast<float>(code - 8) * scale(row, block, 0);
  }
};

struct Q4_1 : PieceOf32<4, 2> {
  static constexpr bool kHasMin = true;
  __device__ __forceinline__ float min(int row, int block) const {
    return number(row, 2 * block + 1);
  }
  __device__ __forceinline__ float value(int code, int row, int block, int) const {
    return __fadd_rn(__fmul_rn(scale(row, block, 0), static_cast<float>(code)), min(row, block));
  }
};

struct Q8_0 : PieceOf32<8, 1> {
  static constexpr bool kHasMin = false;
  __device__ __forceinline__ float min(int, int) const { return 0.0f; }
  __device__ __forceinline__ float value(int code, int row, int block, int) const {
    return static_cast<float>(code) * scale(row, block, 0);
  }
};

__global__ void decode_activations(const int8_t* codes, const float* scales, int64_t ld, int64_t T,
                                   __half* out) {
  launch_dependents();
  wait_for_inputs();
  const int64_t t = blockIdx.y;
  const int64_t k = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
  if (k >= ld) return;
  const char4 c = *reinterpret_cast<const char4*>(codes + t * ld + k);
  const float scale = scales[k / kActBlock * T + t];
  __half2* to = reinterpret_cast<__half2*>(out + t * ld + k);
  to[0] = __floats2half2_rn(c.x * scale, c.y * scale);
  to[1] = __floats2half2_rn(c.z * scale, c.w * scale);
}

}  // namespace

void decode_block_activations(const Context& context, const int8_t* codes, const float* scales,
                              int64_t ld, int64_t T, int64_t tokens, uint16_t* out) {
  launch(context, decode_activations, dim3(blocks_for(ld, 4 * 128), static_cast<unsigned>(tokens)),
         dim3(128), 0, codes, scales, ld, T, reinterpret_cast<__half*>(out));
}

LinearKernel cuda_blocks_row(const char* name, Packing packing) {
  return packing == Packing::q8_0   ? blocks_row<Q8_0>(name, packing)
         : packing == Packing::q4_1 ? blocks_row<Q4_1>(name, packing)
                                    : blocks_row<Q4_0>(name, packing);
}

}  // namespace tandem
