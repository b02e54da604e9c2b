#include "kernels/cuda/attention.h"

#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/elementwise.h"

namespace tandem {

void cuda_attention(const Context& context, const float* qkv, const Batch&, int64_t H,
                    const KvCache& cache, int64_t layer, float*, float* out) {
  const int64_t G = cache.layout.G, D = cache.layout.D;
  CUDA_DOOR((D == 64 || D == 128) && H / G <= kMaxHeadsPerKvHead, D, H, G);
  const StepView& step = step_view(context);
  if (step.num_items > 0) cuda_decode_attention(context, qkv, H, cache, layer, out);
  if (step.num_tiles > 0) cuda_prefill_attention(context, qkv, H, cache, layer, out);
}

}  // namespace tandem
