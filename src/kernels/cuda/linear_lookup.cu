// y[T, N] = x[T, K] . W[N, K]^T for weights of 4 bits whose codes are places in a table of 16
// numbers, with one absmax for each 64 channels: nf4, fp4 and codebook, against bf16 activations.
// Of larger groups absmax is repeated.
//
// Up to four tokens run lookup_few.cuh, bound by 0.5625 N K bytes; more run lookup_ring.cuh. A
// prompt's tokens go through cuBLASLt: some rows of W at a time become bf16, rounded after absmax.
#include <algorithm>

#include "kernels/cuda/cublas.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/lookup_few.cuh"
#include "kernels/cuda/lookup_ring.cuh"
#include "kernels/rows.h"

namespace tandem {
namespace {

constexpr int kGroup = LookupPiece::kGroup, kGroups = LookupPiece::kGroups;
constexpr int kPieceBytes = LookupPiece::kBytes;
constexpr int64_t kCublasTokens = 65;  // from here on decoding a matrix first costs less
constexpr int64_t kMostRows = 65535;   // of a grid's second dimension

// The bytes of channel k ... k + 15 of row n, k a multiple of 16, and their absmax.
__device__ __forceinline__ const uint8_t* codes_at(const uint8_t* w, int pieces, int64_t n, int k,
                                                   float* absmax) {
  const int row = static_cast<int>(n % kTileRows), in_piece = k % kPieceChannels;
  const int group = in_piece / kGroup, q = in_piece % kGroup / 16;
  const uint8_t* piece = w + (n / kTileRows * pieces + k / kPieceChannels) * kPieceBytes;
  *absmax = reinterpret_cast<const float*>(piece + LookupPiece::kAbsmaxAt)[row * kGroups + group];
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
  const float* absmax;   // canonical [N, K / group]
  int64_t K, group;
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
      reinterpret_cast<float*>(piece + LookupPiece::kAbsmaxAt)[row * kGroups + group] =
          p.absmax[(stored * p.K + k) / p.group];
    }
  }
}

Lookup lookup_of(const PackedWeight& w) {
  Lookup p{};
  p.w = reinterpret_cast<const uint8_t*>(w.data);
  p.pieces = static_cast<int>((w.K + kPieceChannels - 1) / kPieceChannels);
  p.K = static_cast<int>(w.K);
  p.N = static_cast<int>(w.N);
  const bool is_own = w.encoding.packing == Packing::codebook;
  std::copy_n(is_own ? w.table : lookup_values(w.encoding.packing), 16, p.values);
  return p;
}

PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
  CudaDevice& device = cuda_device(context);
  PackedWeight packed;
  packed.encoding = parts.front().encoding;
  if (packed.encoding.group % kGroup != 0) {
    cuda_refuse("cuda runs nf4, fp4 and codebook in groups of whole 64; found groups of",
                packed.encoding.group);
  }
  std::copy_n(table_of(parts.front()), 16, packed.table);
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
                         part.encoding.group,
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
    Few<LookupFew> few = few_of<LookupFew>(p);
    std::copy_n(p.values, 16, few.constants.values);
    return run_few(context, few);
  }
  if (run_cublas(context, p)) return;
  run_lookup_ring(context, p);
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
