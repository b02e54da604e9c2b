// The kernels behind kernels/float_work.h, file by file. Launched in the order of the stream.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/float_work.h"

namespace tandem {

// float_layer.cu
void cuda_rotate_heads(float* qkv, const HeadTransform& transform, const float* cos_sin,
                       const HeadShape& shape, cudaStream_t stream);
// Rows of scores [batches, length, length] become probabilities: query t of each sees `window` keys
// up to its own; 0: all of them.
void cuda_causal_softmax(float* scores, int64_t batches, int64_t length, int64_t window,
                         cudaStream_t stream);
// Parts of kMagnitudeParts runs of tokens, [parts, K], then added up.
inline constexpr int64_t kMagnitudeParts = 64;
void cuda_add_magnitudes(const float* x, int64_t T, int64_t K, double* part_sums,
                         float* part_largest, double* sums, float* largest, cudaStream_t stream);

// float_factor.cu
inline constexpr int64_t kFactorBlock = 128;
void cuda_mirror(float* a, int64_t n, float* diagonal, cudaStream_t stream);
// out [n, n] = H of FloatWork::inverse_factor with rows and columns in reversed order.
void cuda_damped_reversed(const float* gram, int64_t n, const int32_t* channels,
                          const uint8_t* dead, float added, float* out, cudaStream_t stream);
// The block at a [size, size], row stride n, size <= kFactorBlock: its upper triangle becomes R with
// a = R^T R, and inverse [kFactorBlock, kFactorBlock] R^-1. *failed = 1 when a pivot is not positive.
void cuda_factor_block(float* a, int64_t n, int64_t size, float* inverse, int32_t* failed,
                       cudaStream_t stream);
// out(i, j) = a(n-1-j, n-1-i) on and above the diagonal, 0 below.
void cuda_flip_upper(const float* a, int64_t n, float* out, cudaStream_t stream);

// column_rounding.cu: what comes before the loop, and positions [begin, begin + count) of it.
void cuda_take_columns(const ColumnRounding& rounding, cudaStream_t stream);
void cuda_round_block(const ColumnRounding& rounding, int64_t begin, int64_t count,
                      cudaStream_t stream);

// zero_search.cu
void cuda_find_ranges(const ZeroSearch& search, cudaStream_t stream);
void cuda_move_zeros(const ZeroSearch& search, cudaStream_t stream);
void cuda_make_codes(const ZeroSearch& search, cudaStream_t stream);

}  // namespace tandem
