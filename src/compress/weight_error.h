// Two models of one shape -> how far each matrix of the second is from the first's.
#pragma once

#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "formats/checkpoint.h"

namespace tandem {

struct MatrixError {
  std::string name;
  double relative_error = 0;  // |W' - W| / |W|, Frobenius; 0 where both are zero
};

// In the order of `result`; matrices that the source has not in that shape are left out. What a
// method moves between neighbours is no error: a matrix is compared with the norm in front of it
// folded into its columns, and where the rows of v or up were scaled by factors of their own (the
// logarithms of the fitted factors deviate by more than kScaledRows), these are taken back there
// and in the columns of o or down that read them.
std::vector<MatrixError> matrix_errors(const Checkpoint& source, const Checkpoint& result,
                                       ThreadPool& pool);

// Rounding to 4 bits deviates by about 0.005, 2:4 by 0.03; scales that a method means by 0.1.
inline constexpr double kScaledRows = 0.06;

// The `count` largest, the largest first.
std::vector<MatrixError> worst_errors(std::vector<MatrixError> errors, size_t count);

}  // namespace tandem
