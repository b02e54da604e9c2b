// Scales s[K] of a linear's inputs, moved from the activations into the weights: what makes the
// inputs is divided by s, the columns that read them are multiplied, and the function stays.
#pragma once

#include <span>

#include "compress/matrix.h"

namespace tandem {

// w[n, k] *= s[k].
void scale_columns(Matrix& w, std::span<const float> scales);
// The last s.size() rows of w are divided: w[n, :] /= s. The linear before.
void divide_rows(Matrix& w, std::span<const float> scales);
// v /= s, element by element: a norm's weight; of a bias that is longer
// than s the last elements. Nothing when v is empty.
void divide(std::span<float> v, std::span<const float> scales);

}  // namespace tandem
