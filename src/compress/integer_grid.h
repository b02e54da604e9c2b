// Weights as integers with a scale and a zero for each group of a row: what round-to-nearest, GPTQ,
// AWQ and HQQ make, before a file's layout is chosen.
//
//   w = (code - zero) * scale     0 <= code < 2^bits
//
// Symmetric: zero = 2^(bits-1), scale = max|w| / (2^bits - 1) * 2, so that the largest positive
// weight clips by up to half a step; as compressed-tensors and AutoGPTQ have it. A group without a
// negative weight is no exception here, as it is in AutoGPTQ.
// Asymmetric: scale = (max - min) / (2^bits - 1) over a range that always holds 0, zero =
// rne(-min / scale).
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "compress/matrix.h"
#include "tensor/encoding.h"

namespace tandem {

struct IntegerGrid {
  int bits = 4;       // 2 to 8
  int64_t group = 0;  // consecutive stored columns that share a scale; 0: the whole row
  bool symmetric = true;
  ScaleType scale_type = ScaleType::bf16;

  bool operator==(const IntegerGrid&) const = default;
  int max_code() const { return (1 << bits) - 1; }
  int middle() const { return 1 << (bits - 1); }  // the zero of a symmetric grid
  int64_t group_size(int64_t K) const { return group == 0 ? K : group; }
  int64_t groups_per_row(int64_t K) const { return K / group_size(K); }
};

// The scale and the zero of one group; the scale is a number of the grid's scale_type.
struct GroupFit {
  float scale = 0;
  uint8_t zero = 0;
};

struct GridMatrix {
  IntegerGrid grid;
  int64_t N = 0;
  int64_t K = 0;
  std::vector<uint8_t> codes;    // [N, K], below 2^bits
  std::vector<float> scales;     // [N, G], numbers of grid.scale_type
  std::vector<uint8_t> zeros;    // [N, G]; grid.middle() where symmetric
  // [K] stored column k is input channel columns[k], as act-order leaves them; empty: the identity.
  std::vector<int32_t> columns;

  GridMatrix() = default;
  // K must be whole groups: CHECKed.
  GridMatrix(const IntegerGrid& grid_, int64_t N_, int64_t K_);

  int64_t groups() const { return grid.groups_per_row(K); }
  GroupFit fit(int64_t n, int64_t g) const {
    const auto i = static_cast<size_t>(n * groups() + g);
    return {scales[i], zeros[i]};
  }
  void set_fit(int64_t n, int64_t g, const GroupFit& fit) {
    const auto i = static_cast<size_t>(n * groups() + g);
    scales[i] = fit.scale;
    zeros[i] = fit.zero;
  }
};

// `value` as a scale: rounded to the type, the type's epsilon where that is 0 (a group of zeros, or
// of numbers too small), its largest number where it is beyond.
float stored_scale(float value, ScaleType type);

// The grid that spans w[n], which must be finite.
GroupFit fit_group(const IntegerGrid& grid, const float* w, int64_t n);
// The same, or one that spans down to a fifth of it where that makes sum |w - decoded|^2.4 smaller:
// AutoGPTQ's search.
GroupFit search_group(const IntegerGrid& grid, const float* w, int64_t n);

// clamp(rne(w / scale) + zero). The quotient is a float's, whatever the scale's type.
uint8_t code_of(const IntegerGrid& grid, const GroupFit& fit, float w);
inline float value_of(const GroupFit& fit, uint8_t code) {
  return static_cast<float>(static_cast<int>(code) - fit.zero) * fit.scale;
}

// Every group fitted by itself and rounded.
GridMatrix round_to_nearest(const Matrix& w, const IntegerGrid& grid, ThreadPool& pool);

// out[K] = row n in float, in the order of the input channels.
void decode_row(const GridMatrix& matrix, int64_t n, float* out);

}  // namespace tandem
