// What compression does in float on a device: products, a layer's ops over many tokens that keep no
// cache, the factor of the inputs' second moments, and GPTQ's loop over columns. The host has these
// in kernels/multiply.h, kernels/ops.h and in the compress room; sums run in another order here.
// Pointers are the device's. Calls return before their work is done; Device::download waits for it.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/device.h"
#include "kernels/multiply.h"
#include "kernels/ops.h"

namespace tandem {

// `count` products at even distances.
struct ProductBatch : Product {
  int64_t count = 1;
  int64_t a_stride = 0, b_stride = 0, c_stride = 0;
  bool accumulates = true;  // else c = alpha * a . b
};

// Heads of whole sequences, all of `length` tokens.
struct HeadShape {
  int64_t T = 0, length = 0;
  int64_t H = 0, G = 0, D = 0;
};

// The grid of compress/integer_grid.h.
struct RoundingGrid {
  int bits = 4;
  int64_t group = 0;  // columns; divides K
  bool symmetric = true;
  bool searches = false;  // the scale that makes sum |w - decoded|^2.4 least
  ScaleType scale_type = ScaleType::bf16;
};

// One matrix for GPTQ. Positions count in the order of the factor.
struct ColumnRounding {
  RoundingGrid grid;
  int64_t N = 0, K = 0;
  bool fits_first = false;  // groups of neighbouring channels, fitted on w as it came
  float* w = nullptr;       // [N, K] by channel; used up
  float* spare = nullptr;   // [N, K], where channels is no identity
  const uint8_t* keep = nullptr;       // [N, K] by channel, 0: pruned; null: dense
  const uint8_t* dead = nullptr;       // [K] by channel, 1: its weights become 0
  const int32_t* channels = nullptr;   // [K] the channel of a position; null: the identity
  const int32_t* columns = nullptr;    // [K] where the code of a position is stored; null: the identity
  const float* factor = nullptr;       // [K, K] upper, 0 below the diagonal
  float* errors = nullptr;             // [N, kBlockColumns]
  uint8_t* codes = nullptr;            // [N, K] by column
  float* scales = nullptr;             // [N, K / group]
  uint8_t* zeros = nullptr;            // [N, K / group]

  static constexpr int64_t kBlockColumns = 128;
};

// One matrix for HQQ (compress/hqq.h).
struct ZeroSearch {
  const float* w = nullptr;  // [N, K]
  int64_t N = 0, K = 0;
  int64_t group = 0;  // columns; divides K
  int bits = 4;
  ScaleType scale_type = ScaleType::bf16;
  bool spans_zero = false;
  float p = 0, beta = 0;
  float threshold = 0;           // no error below it has an outlying part
  float* scales = nullptr;       // [N, K / group]
  float* zeros = nullptr;        // [N, K / group]
  double* row_errors = nullptr;  // [N] sums of |d|
  uint8_t* codes = nullptr;      // [N, K]
};

class FloatWork {
 public:
  virtual ~FloatWork() = default;
  virtual Device& device() = 0;
  // The most of the device's memory that was in use at any operation's start, since this was made.
  virtual uint64_t peak_bytes() const = 0;

  // In fp32 throughout, by the library for large products.
  virtual void multiply(const ProductBatch& product) = 0;
  // Applies `transform` to qkv [T, (H + 2G) D] in place and rotates q and k; cos_sin [length, D].
  virtual void rotate_heads(float* qkv, const HeadTransform& transform, const float* cos_sin,
                            const HeadShape& shape) = 0;
  // out [T, H D]: causal attention of rotated heads within a window of keys; 0: all. scores
  // [G, length, length].
  virtual void attention(const float* qkv, const HeadShape& shape, int64_t window, float* scores,
                         float* out) = 0;
  // sums[K] += sum of |x|, largest[K] = max(largest, |x|), NaN above all, of x [T, K].
  virtual void add_magnitudes(const float* x, int64_t T, int64_t K, double* sums,
                              float* largest) = 0;
  // Copies the upper triangle of a [n, n] onto the lower one; diagonal [n].
  virtual void mirror(float* a, int64_t n, float* diagonal) = 0;
  // upper [n, n] = U with H^-1 = U^T U; row and column k of H are those of channels[k] (null: k) of
  // gram, whose upper triangle is read, with 1 on the diagonal of dead channels and `added` on all
  // of it. spare [n, n]. False when H is not positive definite; waits.
  virtual bool inverse_factor(const float* gram, int64_t n, const int32_t* channels,
                              const uint8_t* dead, float added, float* upper, float* spare) = 0;
  virtual void round_columns(const ColumnRounding& rounding) = 0;
  // The ranges' scales and zeros; one iteration, of zeros and row_errors; the codes.
  virtual void find_ranges(const ZeroSearch& search) = 0;
  virtual void move_zeros(const ZeroSearch& search) = 0;
  virtual void make_codes(const ZeroSearch& search) = 0;
};

// The device must outlive it. Throws no_device where the library for large products is missing.
std::unique_ptr<FloatWork> make_float_work(Device& device);

}  // namespace tandem
