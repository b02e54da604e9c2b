// What few models have: biases of o and of the feed-forward, and RoPE whose angles depend on the
// length of a sequence.
#include <cmath>

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch.cuh"

namespace tandem {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) add_bias_kernel(const float* bias, int N, float* x) {
  launch_dependents();
  wait_for_inputs();
  const int n = static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x);
  if (n < N) x[static_cast<int64_t>(blockIdx.x) * N + n] += bias[n];
}

// A block has a token.
__global__ void dynamic_cos_sin_kernel(const int32_t* positions, const int32_t* lengths,
                                       const DynamicRope rope, int half, float* cos_sin) {
  launch_dependents();
  wait_for_inputs();
  const int64_t t = blockIdx.x;
  double theta = rope.theta;
  if (lengths[t] > rope.above) {
    const double stretch =
        rope.factor * lengths[t] / static_cast<double>(rope.above) - (rope.factor - 1);
    theta *= pow(stretch, half / (half - 1.0));
  }
  for (int d = threadIdx.x; d < half; d += blockDim.x) {
    // In double up to here, as the host has it: positions multiply what is rounded.
    const auto inv_freq = static_cast<float>(1.0 / pow(theta, d / static_cast<double>(half)));
    const float angle = static_cast<float>(positions[t]) * inv_freq;
    cos_sin[t * 2 * half + d] = cosf(angle);
    cos_sin[t * 2 * half + half + d] = sinf(angle);
  }
}

}  // namespace

void cuda_add_bias(const Context& context, const float* bias, int64_t T, int64_t N, float* x) {
  launch(context, add_bias_kernel, dim3(static_cast<unsigned>(T), blocks_for(N, kThreads)),
         dim3(kThreads), 0, bias, static_cast<int>(N), x);
}

void cuda_dynamic_cos_sin(const Context& context, int64_t T, int64_t D, const DynamicRope& rope,
                          float* cos_sin) {
  const StepView& step = step_view(context);
  launch(context, dynamic_cos_sin_kernel, dim3(static_cast<unsigned>(T)), dim3(64), 0,
         step.positions, step.lengths, rope, static_cast<int>(D / 2), cos_sin);
}

}  // namespace tandem
