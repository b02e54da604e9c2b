// How far a linear's output moves when its weights do, over the calibration tokens.
#pragma once

#include <span>

#include "base/thread_pool.h"
#include "compress/matrix.h"
#include "kernels/multiply.h"

namespace tandem {

// sum over tokens of |(A - B) x|^2 = tr((A - B) G (A - B)^T), G = `gram` [K, K] = sum of x x^T.
double output_error(const Matrix& a, const Matrix& b, std::span<const float> gram,
                    Multiply multiply, ThreadPool& pool);

// Sum of the squares of a - b.
double squared_distance(std::span<const float> a, std::span<const float> b);

}  // namespace tandem
