// linear_rows.cu for many tokens, through cuBLASLt, which reads the same rows. bf16 and f16 go in
// one call. E4M3 does too where the library scales rows and tokens itself; else, as int8 always,
// its sums pass through the workspace and a kernel that scales them. E4M3 that meets bf16 is
// decoded first, which loses nothing: the scales come after the sums.
#include <algorithm>

#include "kernels/cuda/cublas.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear_rows.cuh"
#include "kernels/cuda/warp.cuh"

namespace tandem {
namespace {

constexpr int64_t kMostRows = 65535;  // of a grid's second dimension

template <typename T, int kEach>
struct alignas(sizeof(T) * kEach) Neighbours {
  T of[kEach];
};

// y (+)= sums * scales, kEach neighbouring rows a thread. token_scales null: none.
template <typename Sum, int kEach>
__global__ void scale_sums(const Sum* sums, const float* row_scales, const float* token_scales,
                           float* y, int64_t ldy, int N, bool accumulate) {
  using Floats = Neighbours<float, kEach>;
  launch_dependents();
  wait_for_inputs();
  const int n = (blockIdx.x * blockDim.x + threadIdx.x) * kEach;
  const int64_t t = blockIdx.y;
  if (n >= N) return;
  const auto sum = *reinterpret_cast<const Neighbours<Sum, kEach>*>(sums + t * N + n);
  const auto rows = *reinterpret_cast<const Floats*>(row_scales + n);
  auto* to = reinterpret_cast<Floats*>(y + t * ldy + n);
  Floats out{};
  if (accumulate) out = *to;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const float scale = token_scales != nullptr ? rows.of[i] * token_scales[t] : rows.of[i];
    const float value = static_cast<float>(sum.of[i]) * scale;
    out.of[i] = accumulate ? out.of[i] + value : value;
  }
  *to = out;
}

// call.y holds the sums of rows `first_row` ... and tokens `first_token` ...
template <typename Sum>
void launch_scale(const Context& context, const MatmulCall& call, const Rows& p, int64_t first_row,
                  int64_t first_token) {
  const auto* sums = static_cast<const Sum*>(call.y);
  const float* row_scales = p.row_scales + first_row;
  const float* token_scales = p.token_scales != nullptr ? p.token_scales + first_token : nullptr;
  float* y = p.y + first_token * p.ldy + first_row;
  const auto run = [&](auto kernel, int each) {
    launch(context, kernel, dim3(blocks_for(call.N, 256 * each), static_cast<unsigned>(call.T)),
           dim3(256), 0, sums, row_scales, token_scales, y, p.ldy, static_cast<int>(call.N),
           p.accumulate);
  };
  const auto places = reinterpret_cast<uintptr_t>(row_scales) | reinterpret_cast<uintptr_t>(y);
  if (places % 16 == 0 && call.N % 4 == 0 && p.ldy % 4 == 0) {
    run(scale_sums<Sum, 4>, 4);
  } else {
    run(scale_sums<Sum, 1>, 1);
  }
}

// Bytes of rows [first, first + rows) of W as the bf16 numbers they stand for, without their
// scales.
__global__ void decode_fp8(const uint8_t* w, int64_t ldw, int64_t ld, __nv_bfloat16* out) {
  launch_dependents();
  wait_for_inputs();
  const int64_t k = (blockIdx.x * blockDim.x + threadIdx.x) * 8, n = blockIdx.y;
  if (k >= ld) return;
  const uint2 bytes = *reinterpret_cast<const uint2*>(w + n * ldw + k);
  uint4 pairs;
  fp8_to_bf16(bytes.x, pairs.x, pairs.y);
  fp8_to_bf16(bytes.y, pairs.z, pairs.w);
  *reinterpret_cast<uint4*>(out + n * ld + k) = pairs;
}

// y (+)= scales * (x . w^T) through sums in the workspace, some tokens at a time. False when
// cuBLASLt does not take the shape.
template <typename Sum>
bool run_scaled(const Context& context, MatmulCall call, const Rows& p, int64_t x_row_bytes,
                int64_t first_row, std::byte* workspace, size_t workspace_bytes) {
  CudaDevice& device = cuda_device(context);
  const int64_t most = static_cast<int64_t>(workspace_bytes / sizeof(Sum)) / call.N;
  auto* sums = reinterpret_cast<Sum*>(workspace);
  const int64_t T = call.T;
  call.y = sums;
  call.ldy = call.N;
  call.accumulate = false;
  for (int64_t t = 0; t < T; t += most) {
    call.T = std::min(most, T - t);
    call.x = p.x + t * x_row_bytes;
    if (!device.cublas()->matmul(call, device.stream())) {
      CUDA_DOOR(t == 0, t);
      return false;
    }
    launch_scale<Sum>(context, call, p, first_row, t);
  }
  return true;
}

}  // namespace

bool run_rows_cublas(const Context& context, const PackedWeight& w, const Activations& x,
                     const Rows& p) {
  CudaDevice& device = cuda_device(context);
  if (device.cublas() == nullptr) return false;
  constexpr size_t kHalf = CudaDevice::kWorkspaceBytes / 2;
  switch (w.encoding.packing) {
    case Packing::int8_channel:
    case Packing::int8_static:  // the sums that rows_kernel makes
      return run_scaled<int32_t>(context,
                                 {ActType::int8_token, w.N, x.T, w.K, w.data, p.ldw, x.codes,
                                  p.ldx},
                                 p, p.ldx, 0, device.workspace(), CudaDevice::kWorkspaceBytes);
    case Packing::fp8_channel:
    case Packing::fp8_static: {
      // Whole blocks of 32 channels, zero beyond K: E4M3 wants a multiple of 16.
      MatmulCall call{ActType::fp8_token, w.N, x.T, x.K_padded(), w.data, p.ldw, x.codes, p.ldx};
      call.y = p.y, call.ldy = p.ldy, call.accumulate = p.accumulate;
      call.w_scales = p.row_scales, call.x_scales = p.token_scales;
      if (device.cublas()->matmul(call, device.stream())) return true;
      call.w_scales = call.x_scales = nullptr;
      return run_scaled<float>(context, call, p, p.ldx, 0, device.workspace(),
                               CudaDevice::kWorkspaceBytes);
    }
    case Packing::fp8_weight: {
      const int64_t ld = x.K_padded(),
                    most = std::min(kMostRows, static_cast<int64_t>(kHalf) / (ld * 2));
      auto* decoded = reinterpret_cast<__nv_bfloat16*>(device.workspace());
      for (int64_t n = 0; n < w.N; n += most) {
        const int64_t rows = std::min(most, w.N - n);
        launch(context, decode_fp8, dim3(blocks_for(ld, 8 * 128), static_cast<unsigned>(rows)),
               dim3(128), 0, p.w + n * p.ldw, p.ldw, ld, decoded);
        if (!run_scaled<float>(context, {x.type, rows, x.T, ld, decoded, ld, x.half, ld}, p, p.ldx,
                               n, device.workspace() + kHalf, kHalf)) {
          CUDA_DOOR(n == 0, n);
          return false;
        }
      }
      return true;
    }
    default:
      return device.cublas()->matmul(
          {x.type, w.N, x.T, w.K, w.data, p.ldw / 2, x.half, p.ldx / 2, p.y, p.ldy, p.accumulate},
          device.stream());
  }
}

}  // namespace tandem
