// Whether the numbers of a weight matrix are numbers.
#pragma once

#include "tensor/weight.h"

namespace tandem {

// False when row n, counted as the file stores them, holds NaN or infinity: as an element, a scale
// or a minimum.
bool row_is_finite(const Weight& weight, int64_t n);

}  // namespace tandem
