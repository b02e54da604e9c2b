// RoPE with the append to the cache, and attention of every token of a step, prompts and single
// tokens alike, over the cache's pages in the order that Hopper's kernels keep them in
// (kv_fragments.h).
//
// A block has one token and one query head. Warp w takes the keys w, w + kAttentionWarps ... that
// the token sees; lane l has the channels l, l + 32 ... All in f32, with a running softmax; the
// warps meet in shared memory in a fixed order. A token's result depends on nothing but its own
// context.
#pragma once

#include "kernels/cuda/kv_store.cuh"
#include "kernels/cuda/launch.cuh"

namespace tandem {
namespace {

constexpr int kAttentionWarps = 4;
constexpr int kAppendWarps = 4;
static_assert(kAttentionWarps * 32 <= kGeneration.threads &&
              kAttentionWarps * (128 + 2) * sizeof(float) <= kGeneration.shared_bytes);

// Channel d of a token's head, of K or of V.
template <KvType type, int D, bool is_v>
__device__ __forceinline__ float cached(const uint8_t* head, int token, int d) {
  using Bytes = HeadBytes<type, D>;
  constexpr int kBits = kv_bits(type);
  const int64_t bit =
      is_v ? v_fragment_bit(kBits, D, token, d) : k_fragment_bit(kBits, D, token, d);
  const uint8_t* at = head + (is_v ? Bytes::kPlane : 0) + bit / 8;
  if constexpr (type == KvType::bf16) {
    return __bfloat162float(*reinterpret_cast<const __nv_bfloat16*>(at));
  } else {
    constexpr int kWords = is_v ? Bytes::kValueWords : Bytes::kKeyWords;
    const TokenWord<type> word{reinterpret_cast<const uint32_t*>(head + kWords)[token]};
    float code;
    if constexpr (type == KvType::fp8) {
      code = __half2float(__half(__nv_cvt_fp8_to_halfraw(*at, __NV_E4M3)));
    } else if constexpr (type == KvType::int8) {
      code = static_cast<float>(*at - kInt8Bias);
    } else {
      code = static_cast<float>(*at >> (bit % 8) & 15);
    }
    return code * word.scale() + word.min();
  }
}

template <int D>
struct Partial {
  float max = -INFINITY, sum = 0, out[D / 32] = {};

  // Joins what has its own maximum, sum and output; of one key: its score, 1 and its values.
  __device__ __forceinline__ void join(float other_max, float other_sum,
                                       const float (&other)[D / 32]) {
    const float peak = fmaxf(max, other_max), base = peak == -INFINITY ? 0.0f : peak;
    const float mine = expf(max - base), theirs = expf(other_max - base);
    sum = sum * mine + other_sum * theirs;
#pragma unroll
    for (int i = 0; i < D / 32; ++i) out[i] = out[i] * mine + other[i] * theirs;
    max = peak;
  }
};

template <KvType type, int D>
__global__ void __launch_bounds__(kAttentionWarps * 32)
    attention_kernel(const float* qkv, const StepView step, int H, int G, int window,
                     const Pages cache, float* out) {
  constexpr int kEach = D / 32;
  __shared__ float outs[kAttentionWarps][D], maxima[kAttentionWarps], totals[kAttentionWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, h = blockIdx.y, g = h / (H / G);
  const int64_t t = blockIdx.x;
  const int position = step.positions[t];
  const int32_t* pages = step.pages + step.page_tables[t];
  const int first = window == 0 ? 0 : max(0, position + 1 - window);
  const float scale = 1.0f / sqrtf(static_cast<float>(D));
  float q[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) q[i] = qkv[(t * (H + 2 * G) + h) * D + lane + 32 * i] * scale;

  Partial<D> state;
  for (int key = first + warp; key <= position; key += kAttentionWarps) {
    constexpr int kPage = static_cast<int>(kPageTokens);
    const uint8_t* head = cache.head(pages[key / kPage], g);
    float dot = 0, values[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      dot += q[i] * cached<type, D, false>(head, key % kPage, lane + 32 * i);
      values[i] = cached<type, D, true>(head, key % kPage, lane + 32 * i);
    }
    state.join(warp_sum(dot), 1.0f, values);
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) outs[warp][lane + 32 * i] = state.out[i];
  if (lane == 0) maxima[warp] = state.max, totals[warp] = state.sum;
  __syncthreads();
  if (warp != 0) return;
  for (int w = 1; w < kAttentionWarps; ++w) {
    float other[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) other[i] = outs[w][lane + 32 * i];
    state.join(maxima[w], totals[w], other);
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) out[(t * H + h) * D + lane + 32 * i] = state.out[i] / state.sum;
}

// One warp a head: q is transformed and rotated in place, k and v go into the cache.
template <KvType type, int D>
__global__ void __launch_bounds__(kAppendWarps * 32)
    append_kernel(float* qkv, const HeadTransform transform, const StepView step, int H, int G,
                  const float* cos_sin, const Pages cache) {
  constexpr int kEach = D / 32, kHalf = kEach / 2;
  const int lane = threadIdx.x % 32, h = blockIdx.y * kAppendWarps + threadIdx.x / 32;
  if (h >= H + 2 * G) return;
  const int64_t t = blockIdx.x;
  float* row = qkv + (t * (H + 2 * G) + h) * D;
  float x[kEach], sum = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int d = lane + 32 * i;
    x[i] = row[d];
    if (transform.bias != nullptr) x[i] += transform.bias[h * D + d];
    sum += x[i] * x[i];
  }
  const int position = step.positions[t], token = position % kPageTokens;
  const int32_t page = step.pages[step.page_tables[t] + position / kPageTokens];
  if (h >= H + G) {
    store_head<type, D, true>(x, cache.head(page, h - H - G), token);
    return;
  }
  if (transform.q_norm != nullptr) {
    const float* weight = h < H ? transform.q_norm : transform.k_norm;
    const float scale = 1.0f / sqrtf(warp_sum(sum) / D + transform.eps);
#pragma unroll
    for (int i = 0; i < kEach; ++i) x[i] = x[i] * scale * weight[lane + 32 * i];
  }
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const float c = cos_sin[t * D + lane + 32 * i], s = cos_sin[t * D + D / 2 + lane + 32 * i];
    const float a = x[i], b = x[i + kHalf];
    // Each product rounded, as the reference has it: codes then agree to the bit.
    x[i] = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
    x[i + kHalf] = __fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s));
  }
  if constexpr (type == KvType::int4) rotate_hadamard<D>(x);
  if (h >= H) {
    store_head<type, D, false>(x, cache.head(page, h - H), token);
    return;
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) row[lane + 32 * i] = x[i];
}

// Calls `of` with the cache's type and head width as constants.
template <typename Of>
void with_layout(const KvLayout& layout, Of of) {
  CUDA_DOOR(layout.D == 64 || layout.D == 128, layout.D);
  const auto with_width = [&](auto type) {
    if (layout.D == 64) return of(type, std::integral_constant<int, 64>{});
    of(type, std::integral_constant<int, 128>{});
  };
  switch (layout.type) {
    case KvType::bf16:
      return with_width(std::integral_constant<KvType, KvType::bf16>{});
    case KvType::fp8:
      return with_width(std::integral_constant<KvType, KvType::fp8>{});
    case KvType::int8:
      return with_width(std::integral_constant<KvType, KvType::int8>{});
    case KvType::int4:
      return with_width(std::integral_constant<KvType, KvType::int4>{});
    case KvType::f32:
      break;
  }
  CUDA_DOOR(false, static_cast<int64_t>(layout.type));
}

void rope_append(const Context& context, float* qkv, const HeadTransform& transform,
                 const Batch& batch, int64_t H, const float* cos_sin, const KvCache& cache,
                 int64_t layer) {
  const int64_t G = cache.layout.G;
  with_layout(cache.layout, [&](auto type, auto D) {
    const dim3 grid(static_cast<unsigned>(batch.T), blocks_for(H + 2 * G, kAppendWarps));
    append_kernel<type.value, D.value><<<grid, kAppendWarps * 32, 0, cuda_stream(context)>>>(
        qkv, transform, step_view(context), static_cast<int>(H), static_cast<int>(G), cos_sin,
        Pages(cache, layer));
  });
  CUDA_CHECK(cudaGetLastError());
}

void attention(const Context& context, const float* qkv, const Batch& batch, int64_t H,
               const KvCache& cache, int64_t layer, float*, float* out) {
  with_layout(cache.layout, [&](auto type, auto D) {
    const dim3 grid(static_cast<unsigned>(batch.T), static_cast<unsigned>(H));
    attention_kernel<type.value, D.value><<<grid, kAttentionWarps * 32, 0, cuda_stream(context)>>>(
        qkv, step_view(context), static_cast<int>(H), static_cast<int>(cache.layout.G),
        static_cast<int>(cache.layout.window), Pages(cache, layer), out);
  });
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace
}  // namespace tandem
