// The ops besides linear, file by file; rows.cpp makes the table's set of them.
#pragma once

#include "kernels/ops.h"

namespace tandem {

// elementwise.cu
void cuda_quantize(const Context&, const float* x, int64_t ldx, const Activations& out);
void cuda_rms_norm(const Context&, const float* x, int64_t T, int64_t C, const float* weight,
                   float eps, const Activations& out);
void cuda_act_mul(const Context&, const float* gate_up, int64_t T, int64_t F,
                  const Activations& out);
const DeviceOps& cuda_device_ops();

// rare_ops.cu
void cuda_add_bias(const Context&, const float* bias, int64_t T, int64_t N, float* x);
void cuda_dynamic_cos_sin(const Context&, int64_t T, int64_t D, const DynamicRope& rope,
                          float* cos_sin);

// rope_append.cu, attention.cpp
void cuda_rope_append(const Context&, float* qkv, const HeadTransform& transform,
                      const Batch& batch, int64_t H, const float* cos_sin, const KvCache& cache,
                      int64_t layer);
void cuda_attention(const Context&, const float* qkv, const Batch& batch, int64_t H,
                    const KvCache& cache, int64_t layer, float* scratch, float* out);
void cuda_attend(const Context&, float* qkv, const HeadTransform& transform, const Batch& batch,
                 int64_t H, const float* cos_sin, const KvCache& cache, int64_t layer,
                 float* attended, const Activations& out);

}  // namespace tandem
