// y[T, N] = x[T, K] . W[N, K]^T for weights of 4 bits whose codes are places in a table of 16
// numbers, with one absmax for each 64 channels: nf4 and fp4, against bf16 activations.
//
// W in pieces of 16 rows x 128 channels, 1152 bytes each, one after another: [N / 16][pieces][rows
// 0-7, 8-15][lane][16 bytes], then absmax [16 rows][2], f32. Lane 4 r + q holds row r, of each 64
// channels the channels 16 q ... 16 q + 15, as the file has them: a byte is two neighbours.
//
// A byte becomes a pair of bf16 in one look-up: a table of all 256 pairs lies in shared memory once
// for each bank, so that no two lanes meet. Four mma sum 64 channels in f32, and absmax scales the
// sum: a weight is rounded once, from its table's number to bf16, by 2^-9 at most. Up to four tokens
// run few_tokens.cuh; for more, weights come through a ring, splits and orders of sums are those of
// linear_rows.cu. Bound by 0.5625 N K bytes; near that, the look-ups take two thirds of what shared
// memory gives.
//
// A prompt's tokens go through cuBLASLt: some rows of W at a time become bf16, rounded after
// absmax.
#include <algorithm>

#include "kernels/cuda/cublas.h"
#include "kernels/cuda/few_tokens.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/ring.cuh"
#include "kernels/cuda/tile.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/rows.h"

namespace tandem {
namespace {

constexpr int kGroup = 64;  // channels that share absmax
constexpr int kGroups = 2;  // of a piece
constexpr int kPieceChannels = kGroup * kGroups;
constexpr int kCodeBytes = 1024;  // of a piece
constexpr int kPieceBytes = kCodeBytes + kTileRows * kGroups * 4;
constexpr int kReaders = 8;  // warps
constexpr int kStages = 4;
constexpr int kStagePieces = 2 * kReaders;
constexpr int kStageBytes = kStagePieces * kPieceBytes;
constexpr int kMaxTokens = 32;         // for one pass over the weights
constexpr int64_t kCublasTokens = 65;  // from here on decoding a matrix first costs less
constexpr int kPairs = 256;
constexpr int64_t kMostRows = 65535;  // of a grid's second dimension

static_assert(2 * (kStages * kStageBytes + kPairs * 128 + 6144) <= 227 * 1024,
              "two blocks share a multiprocessor");

struct Lookup {
  const uint8_t* w;
  const uint16_t* x;  // [T, ldx], bf16
  int64_t ldx;
  float* y;
  int64_t ldy;
  int pieces;  // of a row
  int K, N, T;
  bool accumulate;
  float values[16];
};

// table[byte][lane] = the two numbers of the byte, its first channel in the low half.
__device__ __forceinline__ void fill_table(uint32_t* table, const float* values) {
  if (threadIdx.x >= kPairs) return;
  const __nv_bfloat162 pair =
      __floats2bfloat162_rn(values[threadIdx.x / 16], values[threadIdx.x % 16]);
  for (unsigned i = 0; i < 32; ++i) {
    table[threadIdx.x * 32 + (threadIdx.x + i) % 32] = *reinterpret_cast<const uint32_t*>(&pair);
  }
}

// The pair of byte kByte of a word; `mine` is the lane's column of the table, in bytes.
template <int kByte>
__device__ __forceinline__ uint32_t pair_of(const uint32_t* table, uint32_t codes, uint32_t mine) {
  const uint32_t row = (kByte == 0 ? codes << 7 : codes >> (8 * kByte - 7)) & 0x7F80;
  return *reinterpret_cast<const uint32_t*>(reinterpret_cast<const char*>(table) + (row | mine));
}

// 64 channels of rows r and r + 8 as the A fragments of four mma.
struct GroupRows {
  uint32_t fragments[4][4];
  __device__ __forceinline__ void load(const uint32_t* table, const uint2& a, const uint2& c,
                                       uint32_t mine) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t upper = half == 0 ? a.x : a.y, lower = half == 0 ? c.x : c.y;
      auto& first = fragments[2 * half];
      auto& second = fragments[2 * half + 1];
      first[0] = pair_of<0>(table, upper, mine), first[1] = pair_of<0>(table, lower, mine);
      first[2] = pair_of<1>(table, upper, mine), first[3] = pair_of<1>(table, lower, mine);
      second[0] = pair_of<2>(table, upper, mine), second[1] = pair_of<2>(table, lower, mine);
      second[2] = pair_of<3>(table, upper, mine), second[3] = pair_of<3>(table, lower, mine);
    }
  }
};

// The same for few tokens. Shared memory has the table, then x [T][pieces, 256 bytes each, and 64]:
// of each group first the first eight channels of the four lanes, then the others.
struct LookupFew {
  static constexpr int kBytes = kPieceBytes;
  static constexpr int kPartPieces = 32;
  static constexpr int kMostTokens = 4;
  static constexpr int kTableBytes = kPairs * 128;
  struct Constants {
    float values[16];
  };

  static __host__ __device__ int stride(int pieces) { return pieces * 256 + 64; }
  static __host__ __device__ int x_bytes(int T, int pieces) {
    return kTableBytes + T * stride(pieces);
  }
  static __device__ __forceinline__ void prepare(const Constants& constants, uint8_t* x) {
    fill_table(reinterpret_cast<uint32_t*>(x), constants.values);
  }
  static __device__ __forceinline__ void load_x(const Few<LookupFew>& p, int first, int count,
                                                uint8_t* x) {
    for_each_chunk(p, first, count, [&](int t, int c, const uint4& v) {
      if (c >= count * 16) return;
      uint8_t* to = x + kTableBytes + t * stride(p.held) + c / 8 * 128;
      *reinterpret_cast<uint4*>(to + c % 2 * 64 + c % 8 / 2 * 16) = v;
    });
  }

  struct Column {
    const uint32_t* table;
    const uint8_t* x;
    __device__ __forceinline__ Column(const Few<LookupFew>& p, const uint8_t* shared, int lane)
        : table(reinterpret_cast<const uint32_t*>(shared)),
          x(shared + kTableBytes + min(lane / 4, p.T - 1) * stride(p.held) + lane % 4 * 16) {}
  };
  struct Tokens {
    uint4 x[kGroups][2];
    __device__ __forceinline__ void load(const Column& column, int piece) {
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        const auto* from = reinterpret_cast<const uint4*>(column.x + piece * 256 + g * 128);
        x[g][0] = from[0], x[g][1] = from[4];
      }
    }
  };
  struct Sums {
    float v[4];
  };

  static __device__ __forceinline__ void multiply(const uint8_t* piece, int lane,
                                                  const Tokens& tokens, const Column& column,
                                                  Sums& sums) {
    const uint4 a = reinterpret_cast<const uint4*>(piece)[lane];
    const uint4 c = reinterpret_cast<const uint4*>(piece)[lane + 32];
    const auto* absmax = reinterpret_cast<const float*>(piece + kCodeBytes) + lane / 4 * kGroups;
    const float2 upper = *reinterpret_cast<const float2*>(absmax);
    const float2 lower = *reinterpret_cast<const float2*>(absmax + 8 * kGroups);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      GroupRows rows;
      rows.load(column.table, g == 0 ? uint2{a.x, a.y} : uint2{a.z, a.w},
                g == 0 ? uint2{c.x, c.y} : uint2{c.z, c.w}, lane * 4);
      float part[4] = {};
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        const uint4& b = tokens.x[g][s / 2];
        MmaBf16::run(part, rows.fragments[s][0], rows.fragments[s][1], rows.fragments[s][2],
                     rows.fragments[s][3], word(b, s % 2 * 2), word(b, s % 2 * 2 + 1));
      }
      const float scale = g == 0 ? upper.x : upper.y, scale8 = g == 0 ? lower.x : lower.y;
      sums.v[0] += part[0] * scale, sums.v[1] += part[1] * scale;
      sums.v[2] += part[2] * scale8, sums.v[3] += part[3] * scale8;
    }
  }
  static __device__ __forceinline__ void publish(const Sums& sums, float* to, int T, int lane) {
    const int r = lane / 4, q = lane % 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int t = 2 * q + i % 2;
      if (t < T) to[t * kTileRows + r + i / 2 * 8] = sums.v[i];
    }
  }
};

// A token's 16 channels of each group of a piece; zero beyond K.
template <int kTiles>
struct Tokens {
  uint4 x[kTiles][kGroups][2];
  __device__ __forceinline__ void load(const Lookup& p, const uint16_t* const (&from)[kTiles],
                                       int piece) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        const int k = piece * kPieceChannels + g * kGroup;
        const auto* at = reinterpret_cast<const uint4*>(from[j] + k);
        x[j][g][0] = k < p.K ? at[0] : uint4{};
        x[j][g][1] = k < p.K ? at[1] : uint4{};
      }
    }
  }
};

// The pieces of a block's tiles, kStagePieces at a time.
struct Run {
  int tile, piece, stride, tiles, pieces;
  __device__ __forceinline__ bool done() const { return tile >= tiles; }
  __device__ __forceinline__ int count() const { return min(kStagePieces, pieces - piece); }
  __device__ __forceinline__ void advance() {
    piece += kStagePieces;
    if (piece >= pieces) piece = 0, tile += stride;
  }
};

// By one thread.
__device__ __forceinline__ void fill_ring(const uint8_t* w, Ring<kStages>& ring, uint8_t* stages,
                                          Run now) {
  const auto address = [&](const Run& run) {
    return w + (static_cast<int64_t>(run.tile) * run.pieces + run.piece) * kPieceBytes;
  };
  RingCursor<kStages> at;
  for (; !now.done(); now.advance()) {
    wait_barrier(&ring.empty[at.stage], at.phase ^ 1);
    const uint32_t bytes = now.count() * kPieceBytes;
    expect_bytes(&ring.full[at.stage], bytes);
    bulk_copy(stages + at.stage * kStageBytes, address(now), bytes, &ring.full[at.stage]);
    at.advance();
  }
}

// A block has the tiles blockIdx.x, + gridDim.x ...
template <int kTiles>
__global__ void __launch_bounds__((kReaders + 1) * 32, kTiles == 1 ? 2 : 1)
    lookup_kernel(const Lookup p, int tiles) {
  extern __shared__ __align__(128) uint8_t stages[];
  __shared__ uint32_t table[kPairs * 32];
  __shared__ Ring<kStages> ring;
  __shared__ float shared[kReaders * kTileTokens8 * kTileRows];
  launch_dependents();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, q = lane % 4;
  fill_table(table, p.values);
  ring.init(kReaders);
  Run now{static_cast<int>(blockIdx.x), 0, static_cast<int>(gridDim.x), tiles, p.pieces};
  if (warp == kReaders) {
    if (lane == 0) fill_ring(p.w, ring, stages, now);
    wait_for_inputs();
    return;
  }
  wait_for_inputs();
  const uint16_t* x[kTiles];
#pragma unroll
  for (int j = 0; j < kTiles; ++j) x[j] = p.x + min(j * 8 + r, p.T - 1) * p.ldx + q * 16;
  RingCursor<kStages> at;
  float sums[kTiles][4] = {};
  // Those of the warp's next piece are on their way while one is at work, if there are registers.
  constexpr bool kFewTokens = kTiles == 1;
  Tokens<kTiles> next;
  if (kFewTokens) next.load(p, x, warp);
  while (!now.done()) {
    const int n0 = now.tile * kTileRows, count = now.count(), first = now.piece;
    now.advance();
    wait_barrier(&ring.full[at.stage], at.phase);
#pragma unroll
    for (int i = 0; i < kStagePieces / kReaders; ++i) {
      const int piece = warp + i * kReaders;
      if (piece >= count) {
        if (kFewTokens && i == 0) next.load(p, x, now.piece + warp);
        break;
      }
      Tokens<kTiles> tokens;
      if constexpr (kFewTokens) {
        tokens = next;
        next.load(p, x, piece + kReaders < count ? first + piece + kReaders : now.piece + warp);
      } else {
        tokens.load(p, x, first + piece);
      }
      const uint8_t* from = stages + at.stage * kStageBytes + piece * kPieceBytes;
      const uint4 a = reinterpret_cast<const uint4*>(from)[lane];
      const uint4 c = reinterpret_cast<const uint4*>(from)[lane + 32];
      const auto* absmax = reinterpret_cast<const float*>(from + kCodeBytes);
      const float2 upper = *reinterpret_cast<const float2*>(absmax + r * kGroups);
      const float2 lower = *reinterpret_cast<const float2*>(absmax + (r + 8) * kGroups);
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        GroupRows rows;
        rows.load(table, g == 0 ? uint2{a.x, a.y} : uint2{a.z, a.w},
                  g == 0 ? uint2{c.x, c.y} : uint2{c.z, c.w}, lane * 4);
        const float scale = g == 0 ? upper.x : upper.y, scale8 = g == 0 ? lower.x : lower.y;
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          float part[4] = {};
#pragma unroll
          for (int s = 0; s < 4; ++s) {
            const uint4& b = tokens.x[j][g][s / 2];
            MmaBf16::run(part, rows.fragments[s][0], rows.fragments[s][1], rows.fragments[s][2],
                         rows.fragments[s][3], word(b, s % 2 * 2), word(b, s % 2 * 2 + 1));
          }
          sums[j][0] += part[0] * scale, sums[j][1] += part[1] * scale;
          sums[j][2] += part[2] * scale8, sums[j][3] += part[3] * scale8;
        }
      }
    }
    __syncwarp();
    if (lane == 0) arrive(&ring.empty[at.stage]);
    at.advance();
    if (now.piece != 0) continue;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      if (j * 8 < p.T) {
        sum_tile(sums[j], shared, kReaders, [&](int t, int n, float sum) {
          if (j * 8 + t >= p.T || n0 + n >= p.N) return;
          float* out = p.y + (j * 8 + t) * p.ldy + n0 + n;
          *out = p.accumulate ? *out + sum : sum;
        });
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[j][i] = 0;
    }
  }
}

template <int kTiles>
void launch_lookup(const Context& context, const Lookup& p) {
  constexpr int kBytes = kStages * kStageBytes;
  static const cudaError_t allowed = cudaFuncSetAttribute(
      lookup_kernel<kTiles>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  CUDA_CHECK(allowed);
  const int tiles = (p.N + kTileRows - 1) / kTileRows;
  launch(
      context, lookup_kernel<kTiles>,
      dim3(balanced_blocks(tiles, (kTiles == 1 ? 2 : 1) * cuda_device(context).multiprocessors())),
      dim3((kReaders + 1) * 32), kBytes, p, tiles);
}

// The bytes of channel k ... k + 15 of row n, k a multiple of 16, and their absmax.
__device__ __forceinline__ const uint8_t* codes_at(const uint8_t* w, int pieces, int64_t n, int k,
                                                   float* absmax) {
  const int row = static_cast<int>(n % kTileRows), in_piece = k % kPieceChannels;
  const int group = in_piece / kGroup, q = in_piece % kGroup / 16;
  const uint8_t* piece = w + (n / kTileRows * pieces + k / kPieceChannels) * kPieceBytes;
  *absmax = reinterpret_cast<const float*>(piece + kCodeBytes)[row * kGroups + group];
  return piece + row / 8 * 512 + (row % 8 * 4 + q) * 16 + group * 8;
}

__device__ __forceinline__ void store_16(const float (&values)[16], float* to) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    reinterpret_cast<float4*>(to)[i] = {values[4 * i], values[4 * i + 1], values[4 * i + 2],
                                        values[4 * i + 3]};
  }
}
__device__ __forceinline__ void store_16(const float (&values)[16], __nv_bfloat16* to) {
  uint32_t pairs[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(values[2 * i], values[2 * i + 1]);
    pairs[i] = *reinterpret_cast<const uint32_t*>(&pair);
  }
  reinterpret_cast<uint4*>(to)[0] = {pairs[0], pairs[1], pairs[2], pairs[3]};
  reinterpret_cast<uint4*>(to)[1] = {pairs[4], pairs[5], pairs[6], pairs[7]};
}

// out[blockIdx.y, k] = the weight of row rows[blockIdx.y], or of first_row + blockIdx.y; 16
// channels a thread.
template <typename Out>
__global__ void decode_rows(const Lookup p, const int32_t* rows, int64_t first_row, Out* out) {
  __shared__ float table[16];
  launch_dependents();
  if (threadIdx.x < 16) table[threadIdx.x] = p.values[threadIdx.x];
  wait_for_inputs();
  __syncthreads();
  const int k = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) * 16;
  if (k >= p.K) return;
  const int64_t n = rows != nullptr ? rows[blockIdx.y] : first_row + blockIdx.y;
  float absmax, values[16];
  const uint2 codes = *reinterpret_cast<const uint2*>(codes_at(p.w, p.pieces, n, k, &absmax));
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    // The first of two channels is in the high nibble.
    const uint32_t half = i < 8 ? codes.x : codes.y;
    values[i] = table[half >> (i % 8 / 2 * 8 + (i % 2 == 0 ? 4 : 0)) & 15] * absmax;
  }
  store_16(values, out + static_cast<int64_t>(blockIdx.y) * p.K + k);
}

template <typename Out>
void launch_decode(const Context& context, const Lookup& p, const int32_t* rows, int64_t first_row,
                   int64_t count, Out* out) {
  launch(context, decode_rows<Out>, dim3(blocks_for(p.K, 16 * 64), static_cast<unsigned>(count)),
         dim3(64), 0, p, rows, first_row, out);
}

// False when cuBLASLt is not there or does not take the shape.
bool run_cublas(const Context& context, const Lookup& p) {
  CudaDevice& device = cuda_device(context);
  if (device.cublas() == nullptr || p.T < kCublasTokens) return false;
  const int64_t most =
      std::min<int64_t>(kMostRows, static_cast<int64_t>(CudaDevice::kWorkspaceBytes) / (p.K * 2));
  auto* decoded = reinterpret_cast<__nv_bfloat16*>(device.workspace());
  for (int64_t n = 0; n < p.N; n += most) {
    const int64_t rows = std::min<int64_t>(most, p.N - n);
    launch_decode(context, p, nullptr, n, rows, decoded);
    if (!device.cublas()->matmul(
            {ActType::bf16, rows, p.T, p.K, decoded, p.K, p.x, p.ldx, p.y + n, p.ldy, p.accumulate},
            device.stream())) {
      CUDA_DOOR(n == 0, n);
      return false;
    }
  }
  return true;
}

struct Packing16 {
  const uint8_t* codes;  // canonical [N, K / 2]
  const float* absmax;   // canonical [N, K / 64]
  int64_t K;
  uint8_t* to;
  int first_row, pieces, interleaved_head;
};

// One block of threads a row; a thread copies 8 bytes, 16 channels, and some absmax.
__global__ void pack_rows(const Packing16 p) {
  const int64_t stored = stored_row(blockIdx.x, p.interleaved_head), n = p.first_row + blockIdx.x;
  const int row = static_cast<int>(n % kTileRows);
  uint8_t* tile = p.to + n / kTileRows * p.pieces * kPieceBytes;
  for (int k = threadIdx.x * 16; k < p.K; k += blockDim.x * 16) {
    uint8_t* piece = tile + k / kPieceChannels * kPieceBytes;
    const int group = k % kPieceChannels / kGroup, q = k % kGroup / 16;
    *reinterpret_cast<uint2*>(piece + row / 8 * 512 + (row % 8 * 4 + q) * 16 + group * 8) =
        *reinterpret_cast<const uint2*>(p.codes + (stored * p.K + k) / 2);
    if (q == 0) {
      reinterpret_cast<float*>(piece + kCodeBytes)[row * kGroups + group] =
          p.absmax[(stored * p.K + k) / kGroup];
    }
  }
}

Lookup lookup_of(const PackedWeight& w) {
  Lookup p{};
  p.w = reinterpret_cast<const uint8_t*>(w.data);
  p.pieces = static_cast<int>((w.K + kPieceChannels - 1) / kPieceChannels);
  p.K = static_cast<int>(w.K);
  p.N = static_cast<int>(w.N);
  std::copy_n(lookup_values(w.encoding.packing), 16, p.values);
  return p;
}

PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
  CudaDevice& device = cuda_device(context);
  PackedWeight packed;
  packed.encoding = parts.front().encoding;
  if (packed.encoding.group != kGroup)
    cuda_refuse("cuda runs nf4 and fp4 in groups of 64; found groups of", packed.encoding.group);
  packed.K = parts.front().K;
  for (const Weight& part : parts) packed.N += part.N;
  packed.read_bytes = total_bytes(parts);
  const Lookup p = lookup_of(packed);
  packed.data_bytes =
      static_cast<uint64_t>((packed.N + kTileRows - 1) / kTileRows * p.pieces * kPieceBytes);
  std::byte* data = arena.take(packed.data_bytes);
  packed.data = data;
  int64_t n = 0;
  for (const Weight& part : parts) {
    const CanonicalBytes canonical = upload_canonical(device, part);
    const Packing16 pack{canonical.data,
                         reinterpret_cast<const float*>(canonical.scales),
                         part.K,
                         reinterpret_cast<uint8_t*>(data),
                         static_cast<int>(n),
                         p.pieces,
                         static_cast<int>(part.interleaved_head)};
    pack_rows<<<static_cast<unsigned>(part.N), 128, 0, device.stream()>>>(pack);
    CUDA_CHECK(cudaGetLastError());
    n += part.N;
  }
  device.synchronize();
  return packed;
}

void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
         bool accumulate) {
  CUDA_DOOR(x.type == ActType::bf16 && x.K == w.K && ldy >= w.N, x.K, w.K, ldy, w.N);
  if (x.T == 0) return;
  Lookup p = lookup_of(w);
  p.x = x.half;
  p.ldx = x.K_padded();
  p.y = y;
  p.ldy = ldy;
  p.T = static_cast<int>(x.T);
  p.accumulate = accumulate;
  if (p.T <= LookupFew::kMostTokens) {
    Few<LookupFew> few{};
    few.w = p.w;
    few.x = p.x;
    few.ldx = static_cast<int>(p.ldx);
    few.y = p.y;
    few.ldy = p.ldy;
    few.pieces = p.pieces;
    few.N = p.N;
    few.T = p.T;
    few.accumulate = p.accumulate;
    std::copy_n(p.values, 16, few.constants.values);
    return run_few(context, few);
  }
  if (run_cublas(context, p)) return;
  for (int64_t t = 0; t < x.T; t += kMaxTokens) {
    p.x = x.half + t * p.ldx;
    p.y = y + t * ldy;
    p.T = static_cast<int>(std::min<int64_t>(kMaxTokens, x.T - t));
    if (p.T <= 8) {
      launch_lookup<1>(context, p);
    } else if (p.T <= 16) {
      launch_lookup<2>(context, p);
    } else {
      launch_lookup<4>(context, p);
    }
  }
}

void gather_rows(const Context& context, const PackedWeight& w, const int32_t* rows, int64_t T,
                 float* out) {
  launch_decode(context, lookup_of(w), rows, 0, T, out);
}

}  // namespace

LinearKernel cuda_lookup_row(const char* name, Packing packing) {
  return {name, "cuda", packing, ActType::bf16, prepack, run, nullptr, gather_rows};
}

}  // namespace tandem
