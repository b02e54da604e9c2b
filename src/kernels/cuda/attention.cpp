#include "kernels/cuda/attention.h"

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/elementwise.h"

namespace tandem {

void cuda_attention(const Context& context, const float* qkv, const Batch&, int64_t H,
                    const KvCache& cache, int64_t layer, float*, float* out) {
  const int64_t G = cache.layout.G, D = cache.layout.D;
  CUDA_DOOR((D == 64 || D == 128) && H / G <= kMaxHeadsPerKvHead, D, H, G);
  const StepView& step = step_view(context);
  if (step.num_items > 0) cuda_decode_attention(context, qkv, {}, H, cache, layer, {out});
  if (step.num_tiles > 0) cuda_prefill_attention(context, qkv, H, cache, layer, out);
}

void cuda_attend(const Context& context, float* qkv, const HeadTransform& transform,
                 const Batch& batch, int64_t H, const float* cos_sin, const KvCache& cache,
                 int64_t layer, float* attended, const Activations& out) {
  const int64_t D = cache.layout.D;
  if (step_view(context).num_tiles > 0) {
    cuda_rope_append(context, qkv, transform, batch, H, cos_sin, cache, layer);
    cuda_attention(context, qkv, batch, H, cache, layer, nullptr, attended);
    return cuda_quantize(context, attended, H * D, out);
  }
  CUDA_DOOR((D == 64 || D == 128) && H / cache.layout.G <= kMaxHeadsPerKvHead, D, H);
  const bool is_bf16 = out.type == ActType::bf16, is_half = is_bf16 || out.type == ActType::f16;
  const bool is_direct = is_half && out.columns == nullptr && out.K_padded() == out.K;
  const Attended to = is_direct ? Attended{nullptr, out.half, is_bf16} : Attended{attended};
  cuda_decode_attention(context, qkv, {transform, cos_sin}, H, cache, layer, to);
  if (!is_direct) cuda_quantize(context, attended, H * D, out);
}

}  // namespace tandem
