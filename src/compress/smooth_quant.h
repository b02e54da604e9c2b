// SmoothQuant: moves the outliers of activations into the weights, so that both can have 8 bits.
// Definition: mit-han-lab/smoothquant smooth.py.
//
//   a[k] = max |x[:, k]|, w[k] = max(1e-5, max over the linears |W[:, k]|)
//   s[k] = max(1e-5, a^alpha / w^(1 - alpha));    x / s, W * s
#pragma once

#include <span>
#include <vector>

#include "compress/matrix.h"

namespace tandem {

// s[K] of linears that share their inputs, whose largest magnitudes over the calibration tokens are
// max_magnitudes[K]. alpha within 0..1.
std::vector<float> smooth_scales(std::span<const float> max_magnitudes,
                                 std::span<const Matrix* const> linears, float alpha);

}  // namespace tandem
