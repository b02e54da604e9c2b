// HQQ, half-quadratic quantization: zero points moved until the decoded weights of each group lie
// near its own in the norm |.|^p with p < 1, which lets a few be far off. Needs no calibration
// data. Definition: the default solver of mobiusml/hqq, hqq/core/optimize.py, in float.
//
//   S = min((2^bits - 1) / (max - min), 2e4), Z = -min S      of each group; S = 1 if max - min <=
//   1e-4 repeat: q = clamp(rne(w S + Z), 0, 2^bits - 1)            d = w - (q - Z) / S
//           e = sign(d) max(|d| - |d|^(p-1) / beta, 0)        Z = mean(q - (w - e) S)
//
// until the matrix's mean |d| no longer falls, at most max_iterations times. 1 / S is a number of
// the grid's scale type from the start, so that Z fits the scale that is stored.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "compress/integer_grid.h"
#include "compress/matrix.h"
#include "kernels/float_work.h"

namespace tandem {

struct HqqOptions {
  int max_iterations = 20;
  float p = 0.7f;
  float beta = 10.0f;
};
// The magnitude below which no part of d is outlying: |d| - |d|^(p-1) / beta > 0 from there on.
float hqq_threshold(const HqqOptions& options);

// Codes with real zero points: w = (code - zero) * scale.
struct RealZeroMatrix {
  IntegerGrid grid;
  int64_t N = 0, K = 0;
  std::vector<uint8_t> codes;  // [N, K]
  std::vector<float> scales;   // [N, groups], numbers of grid.scale_type
  std::vector<float> zeros;    // [N, groups]
  int iterations = 0;          // made before the error stopped falling

  int64_t groups() const { return grid.group == 0 ? 1 : K / grid.group; }
};

// For containers that hold a real zero or minimum. The grid is asymmetric and its group divides K:
// CHECKed. The same numbers on any number of threads.
RealZeroMatrix hqq(const Matrix& w, const IntegerGrid& grid, const HqqOptions& options,
                   ThreadPool& pool);

// For containers whose zeros are codes: each group's range is made to include 0 before the search,
// its zero is rounded after it and the codes are made anew. The search moves a zero by less than a
// step as a rule, so most of what it gains is lost here.
GridMatrix hqq_integer_zeros(const Matrix& w, const IntegerGrid& grid, const HqqOptions& options,
                             ThreadPool& pool);

// The same on a device: sums in another order.
GridMatrix device_hqq_integer_zeros(const Matrix& w, const IntegerGrid& grid,
                                    const HqqOptions& options, FloatWork& work);

// Row n as GGUF's Q4_1: d = f16(scale), m = f16(-zero * scale), codes to the nearest with these.
// The grid has 4 bits and groups of 32: CHECKed. out[K / 32 * 20].
void store_q4_1_row(const RealZeroMatrix& fitted, const float* row, int64_t n, std::byte* out);

}  // namespace tandem
