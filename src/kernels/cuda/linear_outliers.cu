// y[T, N] = x[T, K] . W[N, K]^T for LLM.int8(): bytes with one scale a row, and activations whose
// outliers have 16 bits, in two planes of bytes beside the plane of the others (ops.h).
//
// W as in linear_rows.cu; x [T, 3, K_padded] with scales [2, T]. The three planes of a token meet
// the weights like three tokens, all in int8, so no list of outliers is made, nobody waits for its
// length and any number of them is right. Sums are exact until the planes meet: a token's result
// does not depend on the tokens beside it. Planes of outliers where none of 8 tokens has any are
// not read. Up to 8 tokens bound by N ld bytes.
#include <algorithm>

#include "kernels/cuda/cublas.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_rows.cuh"
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/product.cuh"
#include "kernels/cuda/ring.cuh"
#include "kernels/cuda/tile.cuh"
#include "kernels/cuda/warp.cuh"

namespace tandem {
namespace {

using Product = Plain<MmaS8>;
constexpr int kPlanes = 3;
constexpr int kPieceBytes = 64;                        // as linear_rows.cu packs them
constexpr int kStages = 6, kSegment = 1024;            // bytes of a row in a stage
constexpr int kSegmentPitch = kSegment + kPieceBytes;  // rows begin in different banks
constexpr int kReaders = 8;                            // warps
constexpr int kStageBytes = kTileRows * kSegmentPitch;
constexpr int kMostTokens = kTileTokens8;  // of a launch; for more cuBLASLt, where it is there

// The three sums of a row and a token, as the product they stand for.
__device__ __forceinline__ float outlier_product(const int (&sums)[kPlanes], float row_scale,
                                                 float scale, float outlier_scale) {
  const float outliers =
      fmaf(static_cast<float>(sums[1]), kOutlierRadix, static_cast<float>(sums[2]));
  return row_scale * fmaf(outliers, outlier_scale, static_cast<float>(sums[0]) * scale);
}

// Bytes `byte` + 16 q ... of plane `plane` of token t, zero beyond the plane.
__device__ __forceinline__ uint4 load_plane(const Rows& p, int t, int plane, int byte, int q) {
  if (byte + q * 16 >= p.ldx) return {};
  const int64_t row = static_cast<int64_t>(min(t, p.T - 1)) * kPlanes + plane;
  return *reinterpret_cast<const uint4*>(p.x + row * p.ldx + byte + q * 16);
}

// A block has the tiles of 16 rows blockIdx.x, + gridDim.x ... Rows p is as in linear_rows.cu, of
// at most kMostTokens, but for ldx, the bytes of a plane.
__global__ void __launch_bounds__((kReaders + 1) * 32, 2)
    outliers_kernel(const Rows p, const float* outlier_scales, int tiles) {
  constexpr int kPieces = kSegment / kPieceBytes / kReaders;  // of a stage, for a warp
  extern __shared__ __align__(128) uint8_t stages[];
  __shared__ Ring<kStages> ring;
  __shared__ int shared[kReaders * kTileTokens8 * kTileRows];
  launch_dependents();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, q = lane % 4;
  const int row_bytes = p.pieces * kPieceBytes;
  ring.init(kReaders);
  RingCursor<kStages> at;
  if (warp == kReaders) {
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
      const int64_t n = min(tile * kTileRows + lane, p.N - 1);
      for (int first = 0; first < row_bytes; first += kSegment) {
        wait_barrier(&ring.empty[at.stage], at.phase ^ 1);
        const int bytes = min(kSegment, row_bytes - first);
        if (lane == 0) expect_bytes(&ring.full[at.stage], bytes * kTileRows);
        __syncwarp();
        if (lane < kTileRows) {
          bulk_copy(stages + at.stage * kStageBytes + lane * kSegmentPitch, p.w + n * p.ldw + first,
                    bytes, &ring.full[at.stage]);
        }
        at.advance();
      }
    }
    wait_for_inputs();
    return;
  }
  wait_for_inputs();
  const bool has_outlier = outlier_scales[min(r, p.T - 1)] != 0;
  const int planes = __any_sync(~0u, has_outlier) ? kPlanes : 1;  // that hold anything
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    int sums[kPlanes][4] = {};
    for (int first = 0; first < row_bytes; first += kSegment) {
      uint4 b[kPieces][kPlanes];
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
#pragma unroll
        for (int plane = 0; plane < kPlanes; ++plane) {
          const int byte = first + (warp + i * kReaders) * kPieceBytes;
          if (plane < planes) b[i][plane] = load_plane(p, r, plane, byte, q);
        }
      }
      wait_barrier(&ring.full[at.stage], at.phase);
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        const int byte = (warp + i * kReaders) * kPieceBytes;
        if (first + byte >= row_bytes) break;
        const uint8_t* from = stages + at.stage * kStageBytes + r * kSegmentPitch + byte + q * 16;
        uint32_t rows[Product::kSteps][4];
        Product::rows(*reinterpret_cast<const uint4*>(from),
                      *reinterpret_cast<const uint4*>(from + 8 * kSegmentPitch), rows);
#pragma unroll
        for (int plane = 0; plane < kPlanes; ++plane) {
          if (plane >= planes) break;
          const uint4 loaded[1] = {b[i][plane]};
          uint32_t tokens[Product::kSteps][2];
          Product::tokens(loaded, tokens);
#pragma unroll
          for (int s = 0; s < Product::kSteps; ++s) {
            Product::Mma::run(sums[plane], rows[s][0], rows[s][1], rows[s][2], rows[s][3],
                              tokens[s][0], tokens[s][1]);
          }
        }
      }
      __syncwarp();
      if (lane == 0) arrive(&ring.empty[at.stage]);
      at.advance();
    }
    static_assert(kTileTokens8 * kTileRows <= kReaders * 32, "a thread gets at most one element");
    int parts[kPlanes] = {}, t = p.T, n = p.N;
#pragma unroll
    for (int plane = 0; plane < kPlanes; ++plane) {
      if (plane >= planes) break;
      sum_tile(sums[plane], shared, kReaders, [&](int token, int row, int sum) {
        parts[plane] = sum, t = token, n = tile * kTileRows + row;
      });
    }
    if (t >= p.T || n >= p.N) continue;
    const float value =
        outlier_product(parts, p.row_scales[n], p.token_scales[t], outlier_scales[t]);
    float* out = p.y + t * p.ldy + n;
    *out = p.accumulate ? *out + value : value;
  }
}

void launch_outliers(const Context& context, const Rows& p, const float* outlier_scales) {
  constexpr int kBytes = kStages * kStageBytes;
  static_assert(2 * (kBytes + 8192) <= 227 * 1024, "two blocks share a multiprocessor");
  static const cudaError_t allowed =
      cudaFuncSetAttribute(outliers_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  CUDA_CHECK(allowed);
  const int tiles = (p.N + kTileRows - 1) / kTileRows;
  launch(context, outliers_kernel,
         dim3(balanced_blocks(tiles, 2 * cuda_device(context).multiprocessors())),
         dim3((kReaders + 1) * 32), kBytes, p, outlier_scales, tiles);
}

// y (+)= what sums [T, 3, N] stand for.
__global__ void scale_planes(const int32_t* sums, const Rows p, const float* outlier_scales) {
  launch_dependents();
  wait_for_inputs();
  const int n = blockIdx.x * blockDim.x + threadIdx.x;
  const int64_t t = blockIdx.y;
  if (n >= p.N) return;
  const int32_t* of_token = sums + t * kPlanes * p.N + n;
  const int parts[] = {of_token[0], of_token[p.N], of_token[2 * static_cast<int64_t>(p.N)]};
  const float value = outlier_product(parts, p.row_scales[n], p.token_scales[t], outlier_scales[t]);
  float& out = p.y[t * p.ldy + n];
  out = p.accumulate ? out + value : value;
}

// The rows of p from token `first` on.
Rows from_token(Rows p, int first, int count) {
  p.x += first * kPlanes * p.ldx;
  p.token_scales += first;
  p.y += first * p.ldy;
  p.T = count;
  return p;
}

// False when cuBLASLt is not there or does not take the shape.
bool run_cublas(const Context& context, const PackedWeight& w, const Rows& p,
                const float* outlier_scales) {
  CudaDevice& device = cuda_device(context);
  if (device.cublas() == nullptr) return false;
  auto* sums = reinterpret_cast<int32_t*>(device.workspace());
  const auto most = static_cast<int>(CudaDevice::kWorkspaceBytes / sizeof(int32_t) /
                                     static_cast<size_t>(kPlanes * w.N));
  for (int t = 0; t < p.T; t += most) {
    const Rows some = from_token(p, t, std::min(most, p.T - t));
    MatmulCall call{ActType::int8_token, w.N, kPlanes * some.T, w.K, w.data, p.ldw, some.x, p.ldx};
    call.y = sums;
    call.ldy = w.N;
    if (!device.cublas()->matmul(call, device.stream())) {
      CUDA_DOOR(t == 0, t);
      return false;
    }
    launch(context, scale_planes, dim3(blocks_for(w.N, 256), static_cast<unsigned>(some.T)),
           dim3(256), 0, sums, some, outlier_scales + t);
  }
  return true;
}

void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
         bool accumulate) {
  CUDA_DOOR(x.type == ActType::int8_outlier && x.K == w.K && ldy >= w.N, x.K, w.K, ldy, w.N);
  if (x.T == 0) return;
  Rows p{};
  p.w = reinterpret_cast<const uint8_t*>(w.data);
  p.ldw = (w.K + kPieceBytes - 1) / kPieceBytes * kPieceBytes;
  p.x = reinterpret_cast<const uint8_t*>(x.codes);
  p.ldx = x.K_padded();
  p.row_scales = reinterpret_cast<const float*>(w.data + w.N * p.ldw);
  p.token_scales = x.scales;
  p.y = y;
  p.ldy = ldy;
  p.pieces = static_cast<int>(p.ldw / kPieceBytes);
  p.N = static_cast<int>(w.N);
  p.T = static_cast<int>(x.T);
  p.accumulate = accumulate;
  const float* outlier_scales = x.scales + x.T;
  if (x.T > kMostTokens && run_cublas(context, w, p, outlier_scales)) return;
  for (int t = 0; t < p.T; t += kMostTokens) {
    launch_outliers(context, from_token(p, t, std::min(kMostTokens, p.T - t)), outlier_scales + t);
  }
}

}  // namespace

LinearKernel cuda_outliers_row(const char* name) {
  LinearKernel row = cuda_rows_row(name, Packing::llm_int8, ActType::int8_outlier);
  row.run = run;
  row.many_tokens = "each as three, by cuBLASLt";
  return row;
}

}  // namespace tandem
