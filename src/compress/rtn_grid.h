// Round to nearest into integers with zero points: bit for bit as the compressed-tensors library
// does it for weights of the scales' type, each intermediate result rounded to that type as the
// library's are.
//
//   symmetric    s = max|w| / ((2^bits - 1) / 2)           zero = 2^(bits - 1)
//   asymmetric   s = (max - min) / (2^bits - 1)            zero = rne(clamp(-2^(bits-1) - min / s))
//   + 2^(bits-1)
//                over a range that holds 0
//   code = clamp(rne(w / s + zero))                        a group of zeros: s is the type's
//   epsilon
#pragma once

#include "base/thread_pool.h"
#include "compress/integer_grid.h"

namespace tandem {

// The number of the type that is nearest, ties to even.
float round_to_type(float value, ScaleType type);

// w: finite numbers of grid.scale_type. K must be whole groups: CHECKed.
GridMatrix round_to_grid(const Matrix& w, const IntegerGrid& grid, ThreadPool& pool);

}  // namespace tandem
