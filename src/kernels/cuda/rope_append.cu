// RoPE with the append to the paged cache: q is transformed and rotated in place, k on its way into
// the cache, where v goes beside it, both narrowed as kernels/ref/kv_codes.cpp says, to the bit.
// Bound by the latency of a launch, for prompts by the scattered writes of V.
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/rope_append.cuh"

namespace tandem {
namespace {

constexpr int kWarps = 4;

template <KvType type, int D>
__global__ void __launch_bounds__(kWarps * 32)
    rope_append_kernel(float* qkv, const HeadTransform transform, const StepView step, int H, int G,
                       const float* cos_sin, const Pages cache) {
  launch_dependents();
  wait_for_inputs();
  rope_append_head<type, D>(qkv, transform, step, H, G, cos_sin, cache, blockIdx.x,
                            blockIdx.y * kWarps + threadIdx.x / 32);
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
