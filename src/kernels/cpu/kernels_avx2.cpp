// The kernels of cpu/ compiled for AVX2. Library headers come first, outside the region, so that no
// inline function of theirs is compiled for an instruction set that the processor may lack.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "kernels/rows.h"
#include "tensor/dtype.h"
#include "tensor/super_block.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace tandem {
namespace {

#include "kernels/cpu/simd_avx2.h"
// The shared kernels, in terms of the operations above.
#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/code_planes.h"
#include "kernels/cpu/linear_codes.h"
#include "kernels/cpu/linear_float.h"
#include "kernels/cpu/linear_sparse.h"
#include "kernels/cpu/linear_super.h"
#include "kernels/cpu/linear_table.h"
#include "kernels/cpu/multiply.h"

using Set = Avx2;
#define KERNEL(stem) "linear_" stem "_avx2"
#include "kernels/cpu/rows.h"
#undef KERNEL

}  // namespace

std::span<const LinearKernel> avx2_linear_kernels() { return kRows; }

const OpSet& avx2_ops() { return kOps; }

Multiply avx2_multiply() { return TiledMultiply<Set>::run; }

}  // namespace tandem

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
