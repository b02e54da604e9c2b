#include "compress/fp8_grid.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "tensor/dtype.h"

namespace tandem {
namespace {

constexpr float kBf16Eps = 0x1p-7f;

float bf16(float value) { return bf16_to_float(float_to_bf16(value)); }

float bf16_scale(float magnitude) {
  const float scale = bf16(magnitude / kMaxE4M3);
  return scale == 0 ? kBf16Eps : scale;
}

// A block of zeros keeps the scale 1.
float f32_factor(float magnitude) { return magnitude > 0 ? 1.0f / magnitude * kMaxE4M3 : 1.0f; }

}  // namespace

Fp8Grid::Fp8Grid(int64_t N_, int64_t K_, int64_t rows_, int64_t columns_, ScaleType type)
    : N(N_), K(K_), rows(rows_), columns(columns_), scale_type(type),
      magnitudes(static_cast<size_t>(row_blocks() * column_blocks()), 0.0f) {}

void Fp8Grid::add_row(int64_t n, const float* row) {
  float* of_row = magnitudes.data() + n / rows * column_blocks();
  for (int64_t b = 0; b < column_blocks(); ++b) {
    for (int64_t k = b * columns; k < std::min((b + 1) * columns, K); ++k) {
      of_row[b] = std::max(of_row[b], std::fabs(row[k]));
    }
  }
}

void Fp8Grid::store_scales(int64_t row_block, std::byte* out) const {
  const float* of_row = magnitudes.data() + row_block * column_blocks();
  for (int64_t b = 0; b < column_blocks(); ++b, out += scale_bytes(scale_type)) {
    const bool is_bf16 = scale_type == ScaleType::bf16;
    store_scale(out, scale_type, is_bf16 ? bf16_scale(of_row[b]) : 1.0f / f32_factor(of_row[b]));
  }
}

void Fp8Grid::store_codes(int64_t n, const float* row, std::byte* out) const {
  const float* of_row = magnitudes.data() + n / rows * column_blocks();
  for (int64_t b = 0; b < column_blocks(); ++b) {
    const bool is_bf16 = scale_type == ScaleType::bf16;
    const float scale = bf16_scale(of_row[b]), factor = f32_factor(of_row[b]);
    for (int64_t k = b * columns; k < std::min((b + 1) * columns, K); ++k) {
      // compressed-tensors adds a zero point, which takes the sign from a zero.
      const float value = is_bf16 ? bf16(row[k] / scale) + 0.0f : row[k] * factor;
      out[k] = static_cast<std::byte>(float_to_e4m3(value));
    }
  }
}

}  // namespace tandem
