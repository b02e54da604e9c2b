// RoPE with the append to the paged cache: q is transformed and rotated in place, k on its way into
// the cache, where v goes beside it, both narrowed as kernels/ref/kv_codes.cpp says, to the bit.
//
// One warp a head. For prompts, and for steps that have one: single tokens alone are appended by
// decode_attention.cu. Bound by the latency of a launch, for prompts by the scattered writes of V.
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/head_transform.cuh"

namespace tandem {
namespace {

constexpr int kWarps = 4;

template <KvType type, int D>
__global__ void __launch_bounds__(kWarps * 32)
    rope_append_kernel(float* qkv, const HeadTransform transform, const StepView step, int H, int G,
                       const float* cos_sin, const Pages cache) {
  launch_dependents();
  wait_for_inputs();
  const int lane = threadIdx.x % 32, h = blockIdx.y * kWarps + threadIdx.x / 32;
  if (h >= H + 2 * G) return;
  const int64_t t = blockIdx.x;
  float* row = qkv + (t * (H + 2 * G) + h) * D;
  float x[D / 32];
  load_head<D>(row, transform.bias == nullptr ? nullptr : transform.bias + h * D, x);
  const int position = step.positions[t], token = position % kPageTokens;
  const int32_t page = step.pages[step.page_tables[t] + position / kPageTokens];
  if (h >= H + G) {
    store_head<type, D, true>(x, cache.head(page, h - H - G), token);
    return;
  }
  Angles<D> angles;
  angles.load(cos_sin + t * D);
  rotate_head<type, D>(x, h < H ? transform.q_norm : transform.k_norm, transform.eps, angles);
  if (h >= H) {
    store_head<type, D, false>(x, cache.head(page, h - H), token);
    return;
  }
#pragma unroll
  for (int i = 0; i < D / 32; ++i) row[lane + 32 * i] = x[i];
}

template <KvType type>
void append(const Context& context, float* qkv, const HeadTransform& transform, const Batch& batch,
            int64_t H, const float* cos_sin, const KvCache& cache, int64_t layer) {
  const int64_t G = cache.layout.G, D = cache.layout.D;
  launch(context, D == 64 ? rope_append_kernel<type, 64> : rope_append_kernel<type, 128>,
         dim3(static_cast<unsigned>(batch.T), blocks_for(H + 2 * G, kWarps)), dim3(kWarps * 32), 0,
         qkv, transform, step_view(context), static_cast<int>(H), static_cast<int>(G), cos_sin,
         Pages(cache, layer));
}

}  // namespace

void cuda_rope_append(const Context& context, float* qkv, const HeadTransform& transform,
                      const Batch& batch, int64_t H, const float* cos_sin, const KvCache& cache,
                      int64_t layer) {
  const int64_t D = cache.layout.D;
  CUDA_DOOR(D == 64 || D == 128, D);
  const auto run = [&](auto append_type) {
    append_type(context, qkv, transform, batch, H, cos_sin, cache, layer);
  };
  switch (cache.layout.type) {
    case KvType::bf16:
      return run(append<KvType::bf16>);
    case KvType::fp8:
      return run(append<KvType::fp8>);
    case KvType::int8:
      return run(append<KvType::int8>);
    case KvType::int4:
      return run(append<KvType::int4>);
    case KvType::f32:
      break;
  }
  CUDA_DOOR(false, static_cast<int64_t>(cache.layout.type));
}

}  // namespace tandem
