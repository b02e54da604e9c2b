// y[T, N] = x[T, K] . W[N, K]^T for weights that stay row-major: bf16, f16, and bytes with one
// scale a row, int8 or E4M3.
//
// W  [N, ld bytes], ld the row's bytes rounded up to 64 and zero beyond K; x [T, K_padded] of the
// same type (int8 and E4M3: with one scale a token; E4M3 also meets bf16); y f32. cuBLASLt reads
// the same copy for many tokens.
//
// A block owns 16 rows at a time. Its warps share K: warp w takes the pieces w,
// w + W ... of 64 bytes a row. A lane has 16 bytes of row r and of row r + 8, which are the A
// fragments of two mma, and 16 bytes of a token, the B fragments: 16-bit numbers and int8 go from
// memory to the tensor cores without one instruction of arithmetic. E4M3 has no mma of its own
// below wgmma; it becomes f16, or bf16 where it meets bf16, which hold all its numbers. The warps'
// sums meet in shared memory in a fixed order, and the split depends on K only: a token's result
// does not depend on the tokens beside it. Bound by N ld bytes. Up to 16 tokens: rows_ring.cuh.
//
// Lost so far: four warps that fill a ring, tiles of 32 rows, asking L2 for weights ahead.
#include <algorithm>

#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/rows_ring.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/rows.h"

namespace tandem {
namespace {

constexpr int kRows = kTileRows;
constexpr int kMaxTiles = 8;            // of 8 tokens, for one pass over the weights
constexpr int64_t kCublasTokens = 17;   // from here on cuBLASLt is faster ...
constexpr int64_t kDecodedTokens = 65;  // ... and from here on where it needs decoded weights

template <int kUnroll>
__device__ __forceinline__ void load_pieces(uint4 (&a)[kUnroll][2], const uint8_t* row0,
                                            const uint8_t* row1, int piece, int stride,
                                            int pieces) {
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int p = piece + u * stride;
    if (p < pieces) {
      a[u][0] = load_stream(row0 + p * kPieceBytes);
      a[u][1] = load_stream(row1 + p * kPieceBytes);
    } else {
      a[u][0] = a[u][1] = uint4{};
    }
  }
}

template <typename Product, int kTiles, int kUnroll>
__global__ void __launch_bounds__(256) rows_kernel(const Rows p) {
  using Mma = typename Product::Mma;
  using Sum = typename Mma::Sum;
  extern __shared__ char shared_bytes[];
  Sum* shared = reinterpret_cast<Sum*>(shared_bytes);  // see sum_tile
  launch_dependents();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int r = lane / 4, q = lane % 4;
  const int n0 = blockIdx.x * kRows, t0 = blockIdx.y * kTiles * 8;
  const uint8_t* row0 = p.w + min(n0 + r, p.N - 1) * p.ldw + q * 16;
  const uint8_t* row1 = p.w + min(n0 + r + 8, p.N - 1) * p.ldw + q * 16;

  uint4 next[kUnroll][2];
  load_pieces(next, row0, row1, warp, warps, p.pieces);
  wait_for_inputs();

  const uint8_t* x[kTiles];
#pragma unroll
  for (int j = 0; j < kTiles; ++j) x[j] = token_row<Product>(p, t0 + j * 8 + r, q);
  Sum sums[kTiles][4] = {};
  for (int piece = warp; piece < p.pieces; piece += warps * kUnroll) {
    uint4 a[kUnroll][2];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) a[u][0] = next[u][0], a[u][1] = next[u][1];
    load_pieces(next, row0, row1, piece + warps * kUnroll, warps, p.pieces);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      uint32_t rows[Product::kSteps][4];
      Product::rows(a[u][0], a[u][1], rows);
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        uint4 loaded[Product::kLoads];
        load_token<Product>(p, x[j], (piece + u * warps) * kPieceBytes, q, loaded);
        uint32_t tokens[Product::kSteps][2];
        Product::tokens(loaded, tokens);
#pragma unroll
        for (int s = 0; s < Product::kSteps; ++s) {
          Mma::run(sums[j], rows[s][0], rows[s][1], rows[s][2], rows[s][3], tokens[s][0],
                   tokens[s][1]);
        }
      }
    }
  }

#pragma unroll
  for (int j = 0; j < kTiles; ++j) store_tile(p, sums[j], shared, warps, n0, t0 + j * 8);
}

template <typename Product, int kTiles, int kUnroll>
void launch_rows(const Context& context, const Rows& p) {
  // At least 4 pieces a warp, so that a lane has 8 loads under way.
  const int warps = std::clamp(p.pieces / 4, 1, 8);
  launch(context, rows_kernel<Product, kTiles, kUnroll>,
         dim3(blocks_for(p.N, kRows), blocks_for(p.T, kTiles * 8)),
         dim3(static_cast<unsigned>(warps * 32)), tile_bytes(warps), p);
}

template <typename Product>
void launch_rows(const Context& context, const Rows& p) {
  if (p.T <= 8) {
    launch_ring<Product, 1>(context, p);
  } else if (p.T <= 16) {
    launch_ring<Product, 2>(context, p);
  } else if (p.T <= 32) {
    launch_rows<Product, 4, 2>(context, p);
  } else {
    launch_rows<Product, kMaxTiles, 1>(context, p);
  }
}

// The layout: the rows, then their scales if they have any.
int64_t row_stride(const Encoding& encoding, int64_t K) {
  return (static_cast<int64_t>(encoding.row_bytes(K)) + kPieceBytes - 1) / kPieceBytes *
         kPieceBytes;
}
const float* row_scales(const PackedWeight& w) {
  return reinterpret_cast<const float*>(w.data + w.N * row_stride(w.encoding, w.K));
}

struct CopyRows {
  const uint8_t* from;    // canonical rows
  const uint8_t* scales;  // canonical, one a row; null: none
  ScaleType scale_type;
  uint8_t* to;
  float* to_scales;
  int64_t row_bytes, ld;
  int N, interleaved_head;
};

__global__ void copy_rows(const CopyRows p) {
  const int n = blockIdx.x;
  const int64_t stored = stored_row(n, p.interleaved_head);
  for (int64_t i = threadIdx.x; i < p.ld; i += blockDim.x) {
    p.to[n * p.ld + i] = i < p.row_bytes ? p.from[stored * p.row_bytes + i] : 0;
  }
  if (p.scales != nullptr && threadIdx.x == 0) {
    const int step = p.scale_type == ScaleType::f32 ? 4 : 2;
    p.to_scales[n] = decode_scale(p.scales + stored * step, p.scale_type);
  }
}

PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
  CudaDevice& device = cuda_device(context);
  PackedWeight packed;
  packed.encoding = parts.front().encoding;
  packed.K = parts.front().K;
  for (const Weight& part : parts) packed.N += part.N;
  packed.read_bytes = total_bytes(parts);
  const int64_t ld = row_stride(packed.encoding, packed.K);
  const bool has_scales = packed.encoding.scale_type != ScaleType::none;
  packed.data_bytes = static_cast<uint64_t>(packed.N * (ld + (has_scales ? 4 : 0)));
  std::byte* data = arena.take(packed.data_bytes);
  packed.data = data;
  int64_t n = 0;
  for (const Weight& part : parts) {
    const CanonicalBytes canonical = upload_canonical(device, part);
    const CopyRows copy{canonical.data,
                        canonical.scales,
                        packed.encoding.scale_type,
                        reinterpret_cast<uint8_t*>(data + n * ld),
                        reinterpret_cast<float*>(data + packed.N * ld) + n,
                        static_cast<int64_t>(packed.encoding.row_bytes(packed.K)),
                        ld,
                        static_cast<int>(part.N),
                        static_cast<int>(part.interleaved_head)};
    copy_rows<<<static_cast<unsigned>(part.N), 256, 0, device.stream()>>>(copy);
    CUDA_CHECK(cudaGetLastError());
    n += part.N;
  }
  device.synchronize();
  return packed;
}

void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
         bool accumulate) {
  CUDA_DOOR(x.type == w.kernel->act_type && x.K == w.K && ldy >= w.N, x.K, w.K, ldy, w.N);
  if (x.T == 0) return;
  const Packing packing = w.encoding.packing;
  const bool is_scaled = w.encoding.scale_type != ScaleType::none;
  const bool is_int8 = packing == Packing::int8_channel || packing == Packing::int8_static;
  const bool is_fp8 = packing == Packing::fp8_channel || packing == Packing::fp8_static;
  const bool is_bytes = is_int8 || is_fp8;
  Rows p{};
  p.w = reinterpret_cast<const uint8_t*>(w.data);
  p.ldw = row_stride(w.encoding, w.K);
  p.x = is_bytes ? reinterpret_cast<const uint8_t*>(x.codes)
                 : reinterpret_cast<const uint8_t*>(x.half);
  p.ldx = x.K_padded() * (is_bytes ? 1 : 2);
  p.row_scales = is_scaled ? row_scales(w) : nullptr;
  p.token_scales = is_bytes ? x.scales : nullptr;
  p.y = y;
  p.ldy = ldy;
  p.pieces = static_cast<int>(p.ldw / kPieceBytes);
  p.x_pieces_bytes = static_cast<int>(p.ldx);
  p.N = static_cast<int>(w.N);
  p.T = static_cast<int>(x.T);
  p.accumulate = accumulate;
  const int64_t cublas_from = packing == Packing::fp8_weight ? kDecodedTokens : kCublasTokens;
  if (x.T >= cublas_from && run_rows_cublas(context, w, x, p)) return;
  if (is_int8) return launch_rows<Plain<MmaS8>>(context, p);
  if (is_fp8) return launch_rows<Fp8>(context, p);
  if (packing == Packing::fp8_weight) return launch_rows<Fp8Weight>(context, p);
  if (packing == Packing::bf16) return launch_rows<Plain<MmaBf16>>(context, p);
  launch_rows<Plain<MmaF16>>(context, p);
}

__device__ __forceinline__ float fp8_to_float(uint8_t code) {
  uint32_t low, high;
  fp8_to_f16(code, low, high);
  return __half2float(__ushort_as_half(static_cast<uint16_t>(low)));
}

__global__ void gather_kernel(const uint8_t* w, int64_t ld, const float* scales, Packing packing,
                              const int32_t* rows, int K, float* out) {
  launch_dependents();
  wait_for_inputs();
  const int64_t n = rows[blockIdx.x];
  const uint8_t* row = w + n * ld;
  for (int k = threadIdx.x; k < K; k += blockDim.x) {
    float value;
    if (packing == Packing::int8_channel || packing == Packing::int8_static ||
        packing == Packing::llm_int8) {
      value = static_cast<float>(reinterpret_cast<const int8_t*>(row)[k]) * scales[n];
    } else if (packing == Packing::fp8_channel || packing == Packing::fp8_static ||
               packing == Packing::fp8_weight) {
      value = fp8_to_float(row[k]) * scales[n];
    } else if (packing == Packing::bf16) {
      value = __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(row)[k]);
    } else {
      value = __half2float(reinterpret_cast<const __half*>(row)[k]);
    }
    out[static_cast<int64_t>(blockIdx.x) * K + k] = value;
  }
}

void gather_rows(const Context& context, const PackedWeight& w, const int32_t* rows, int64_t T,
                 float* out) {
  launch(context, gather_kernel, dim3(static_cast<unsigned>(T)), dim3(256), 0,
         reinterpret_cast<const uint8_t*>(w.data), row_stride(w.encoding, w.K), row_scales(w),
         w.encoding.packing, rows, static_cast<int>(w.K), out);
}

}  // namespace

LinearKernel cuda_rows_row(const char* name, Packing packing, ActType act_type) {
  return {name, "cuda", packing, act_type, prepack, run, nullptr, gather_rows};
}

}  // namespace tandem
