// y[T, N] = x[T, K] . W[N, K]^T for every encoding of weights: each number is decoded to 16 bits on
// its way into a tensor core.
//
// A block has 16 rows. Its warps share K: warp w takes the runs w, w + kWarps ... of 32 channels.
// Of a run lane 4 r + q has the eight channels from 8 q on, of rows r and r + 8 and of each token,
// which are the fragments of two mma with k 16. Numbers of a row or a token that has one scale are
// codes, exact in 16 bits, and the scale comes after; others are rounded once to f16 or bf16. Where
// a token's codes have a scale for each 32 or 128 channels, a run's sum is scaled before it joins
// the others. The warps' sums meet in a fixed order, and the split depends on K only.
#pragma once

#include "kernels/cuda/older/weights.cuh"

namespace tandem {
namespace {

constexpr int kWarps = 8;
constexpr int kRun = 32;  // channels
static_assert(kRun == kActBlock);
constexpr bool kHasK16 = kGeneration.capability >= 80;  // mma of f16; before it, k 8
constexpr int kSumBytes = kWarps * kTileTokens8 * kTileRows * 4;
static_assert(kSumBytes <= kGeneration.shared_bytes && kWarps * 32 <= kGeneration.threads);

template <bool kIsBf16>
__device__ __forceinline__ uint32_t pair_of(float a, float b) {
  if constexpr (kIsBf16) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<const uint32_t*>(&pair);
  } else {
    const __half2 pair = __floats2half2_rn(a, b);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
}

// c += A B with k 16; fragments as warp.cuh names them.
template <bool kIsBf16>
__device__ __forceinline__ void multiply(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                         uint32_t a3, uint32_t b0, uint32_t b1) {
  if constexpr (kIsBf16) {
    MmaBf16::run(c, a0, a1, a2, a3, b0, b1);
  } else if constexpr (kHasK16) {
    MmaF16::run(c, a0, a1, a2, a3, b0, b1);
  } else {
    const auto half = [&](uint32_t upper, uint32_t lower, uint32_t b) {
      asm volatile(
          "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
          "{%0,%1,%2,%3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(upper), "r"(lower), "r"(b));
    };
    half(a0, a1, b0);
    half(a2, a3, b1);
  }
}

// Eight numbers of a row from k on; beyond K, zeros.
template <bool kIsBf16>
__device__ __forceinline__ void load_weights(const WeightRow& row, int k, uint32_t (&out)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int at = k + 2 * i;
    out[i] = pair_of<kIsBf16>(at < row.w.K ? row.at(at) : 0.0f,
                              at + 1 < row.w.K ? row.at(at + 1) : 0.0f);
  }
}

// Eight of a token, without its scale.
template <bool kIsBf16>
__device__ __forceinline__ void load_token(const Activations& x, int64_t at, uint32_t (&out)[4]) {
  if (kIsBf16 || x.type == ActType::f16) {
    const uint4 words = *reinterpret_cast<const uint4*>(x.half + at);
    out[0] = words.x, out[1] = words.y, out[2] = words.z, out[3] = words.w;
    return;
  }
  const auto* codes = reinterpret_cast<const uint8_t*>(x.codes) + at;
  const auto value = [&](int i) {
    return is_fp8(x.type) ? e4m3_at(codes + i)
                          : static_cast<float>(static_cast<int8_t>(codes[i]));
  };
#pragma unroll
  for (int i = 0; i < 4; ++i) out[i] = pair_of<kIsBf16>(value(2 * i), value(2 * i + 1));
}

template <bool kIsBf16, int kTiles>
__global__ void __launch_bounds__(kWarps * 32)
    linear_kernel(const WeightRows w, const Activations x, float* y, int64_t ldy, bool accumulate) {
  __shared__ float shared[kSumBytes / 4];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, q = lane % 4;
  const int n0 = blockIdx.x * kTileRows, T = static_cast<int>(x.T);
  const int t0 = blockIdx.y * kTiles * kTileTokens8, padded = static_cast<int>(x.K_padded());
  const WeightRow upper(w, min(n0 + r, w.N - 1)), lower(w, min(n0 + r + 8, w.N - 1));
  const bool has_blocks = x.type == ActType::int8_block || x.type == ActType::fp8_block;
  const int group = x.type == ActType::fp8_block ? static_cast<int>(kFp8Block) : kRun;
  float sums[kTiles][4] = {};
  for (int first = warp * kRun; first < padded; first += kWarps * kRun) {
    const int k = first + 8 * q;
    uint32_t a[4], c[4];
    load_weights<kIsBf16>(upper, k, a);
    load_weights<kIsBf16>(lower, k, c);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const int t = t0 + j * kTileTokens8;
      uint32_t b[4];
      load_token<kIsBf16>(x, static_cast<int64_t>(min(t + r, T - 1)) * padded + k, b);
      float run[4] = {};
      multiply<kIsBf16>(run, a[0], c[0], a[1], c[1], b[0], b[1]);
      multiply<kIsBf16>(run, a[2], c[2], a[3], c[3], b[2], b[3]);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int token = min(t + 2 * q + i % 2, T - 1);
        sums[j][i] += has_blocks ? run[i] * x.scales[first / group * T + token] : run[i];
      }
    }
  }
  const bool token_has_scale =
      !has_blocks && x.type != ActType::f16 && x.type != ActType::bf16;
  for (int j = 0; j < kTiles; ++j) {
    sum_tile(sums[j], shared, kWarps, [&](int t, int n, float sum) {
      t += t0 + j * kTileTokens8, n += n0;
      if (t >= T || n >= w.N) return;
      const float value =
          sum * WeightRow(w, n).row_scale() * (token_has_scale ? x.scales[t] : 1.0f);
      float* out = y + t * ldy + n;
      *out = accumulate ? *out + value : value;
    });
  }
}

// The layout: the rows, then their scales, then their zero points.
int64_t row_stride(const PackedWeight& w) {
  return static_cast<int64_t>(w.encoding.row_bytes(w.K) + 3) / 4 * 4;
}
int64_t zeros_row_bytes(const PackedWeight& w) {
  return w.encoding.has_zeros() ? w.encoding.groups_per_row(w.K) : 0;
}
int64_t scale_row_bytes(const PackedWeight& w) {
  return static_cast<int64_t>(w.data_bytes) / w.N - row_stride(w) - zeros_row_bytes(w);
}

WeightRows rows_of(const PackedWeight& w) {
  WeightRows rows{};
  rows.data = reinterpret_cast<const uint8_t*>(w.data);
  rows.ld = row_stride(w);
  rows.scales = rows.data + w.N * rows.ld;
  rows.zeros = rows.scales + w.N * scale_row_bytes(w);
  rows.N = static_cast<int>(w.N);
  rows.K = static_cast<int>(w.K);
  rows.groups = static_cast<int>(w.encoding.groups_per_row(w.K));
  rows.group = static_cast<int>(w.encoding.group);
  rows.packing = w.encoding.packing;
  rows.scale_type = scale_row_bytes(w) > 0 ? w.encoding.scale_type : ScaleType::none;
  std::copy_n(w.table, 16, rows.table);
  return rows;
}

// A block of threads a row, or a row's scales.
__global__ void copy_rows(const uint8_t* from, int64_t bytes, int interleaved_head, uint8_t* to,
                          int64_t ld) {
  const int64_t n = blockIdx.x, stored = stored_row(n, interleaved_head);
  for (int64_t i = threadIdx.x; i < bytes; i += blockDim.x)
    to[n * ld + i] = from[stored * bytes + i];
}

PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
  CudaDevice& device = cuda_device(context);
  PackedWeight packed;
  packed.encoding = parts.front().encoding;
  packed.K = parts.front().K;
  for (const Weight& part : parts) packed.N += part.N;
  packed.read_bytes = total_bytes(parts);
  const int64_t ld = row_stride(packed);
  const auto scales_ld = static_cast<int64_t>(parts.front().scales_bytes()) / parts.front().N;
  const int64_t zeros_ld = zeros_row_bytes(packed);
  packed.data_bytes = static_cast<uint64_t>(packed.N * (ld + scales_ld + zeros_ld));
  packed.columns = upload_columns(device, parts.front(), arena);
  if (packed.encoding.is_lookup()) std::copy_n(table_of(parts.front()), 16, packed.table);
  std::byte* data = arena.take(packed.data_bytes);
  packed.data = data;
  auto* to = reinterpret_cast<uint8_t*>(data);
  uint8_t* scales_to = to + packed.N * ld;
  uint8_t* zeros_to = scales_to + packed.N * scales_ld;
  for (const Weight& part : parts) {
    const CanonicalBytes canonical = upload_canonical(device, part);
    const auto rows = static_cast<unsigned>(part.N);
    const auto head = static_cast<int>(part.interleaved_head);
    copy_rows<<<rows, 256, 0, device.stream()>>>(
        canonical.data, static_cast<int64_t>(packed.encoding.row_bytes(packed.K)), head, to, ld);
    if (scales_ld > 0) {
      copy_rows<<<rows, 64, 0, device.stream()>>>(canonical.scales, scales_ld, head, scales_to,
                                                  scales_ld);
    }
    if (zeros_ld > 0) {
      copy_rows<<<rows, 64, 0, device.stream()>>>(canonical.zeros, zeros_ld, head, zeros_to,
                                                  zeros_ld);
    }
    CUDA_CHECK(cudaGetLastError());
    to += part.N * ld, scales_to += part.N * scales_ld, zeros_to += part.N * zeros_ld;
  }
  device.synchronize();
  return packed;
}

template <bool kIsBf16, int kTiles>
void launch_linear(const Context& context, const PackedWeight& w, const Activations& x, float* y,
                   int64_t ldy, bool accumulate) {
  const dim3 grid(blocks_for(w.N, kTileRows), blocks_for(x.T, kTiles * kTileTokens8));
  linear_kernel<kIsBf16, kTiles>
      <<<grid, kWarps * 32, 0, cuda_stream(context)>>>(rows_of(w), x, y, ldy, accumulate);
  CUDA_CHECK(cudaGetLastError());
}

void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
         bool accumulate) {
  CUDA_DOOR(x.type == w.kernel->act_type && x.K == w.K && ldy >= w.N, x.K, w.K, ldy, w.N);
  if (x.T == 0) return;
  const bool is_one_tile = x.T <= kTileTokens8;
  if (x.type != ActType::bf16) {
    return (is_one_tile ? launch_linear<false, 1> : launch_linear<false, 4>)(context, w, x, y, ldy,
                                                                             accumulate);
  }
  if constexpr (kGeneration.has_bf16()) {
    (is_one_tile ? launch_linear<true, 1> : launch_linear<true, 4>)(context, w, x, y, ldy,
                                                                    accumulate);
  }
}

__global__ void gather_kernel(const WeightRows w, const int32_t* rows, const int32_t* columns,
                              float* out) {
  const WeightRow row(w, rows[blockIdx.x]);
  for (int k = threadIdx.x; k < w.K; k += blockDim.x) {
    out[static_cast<int64_t>(blockIdx.x) * w.K + (columns != nullptr ? columns[k] : k)] =
        row.at(k) * row.row_scale();
  }
}

void gather_rows(const Context& context, const PackedWeight& w, const int32_t* rows, int64_t T,
                 float* out) {
  if (T == 0) return;
  gather_kernel<<<static_cast<unsigned>(T), 256, 0, cuda_stream(context)>>>(rows_of(w), rows,
                                                                            w.columns, out);
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace
}  // namespace tandem
