// A matrix -> its 2:4 form as dense bf16 with zeros, by a rule that needs no calibration.
#pragma once

#include <cstdint>
#include <string_view>

#include "compress/recipe.h"
#include "compress/row_stream.h"
#include "formats/checkpoint.h"

namespace tandem {

// The seed of one tensor's random mask: no two tensors share theirs.
uint64_t mask_seed(uint64_t seed, std::string_view tensor);

// Throws usage naming the tensor when 4 does not divide its width.
void check_prunable(std::string_view tensor, int64_t K);

// The tensor pruned as recipe.pruning says, which is not none: CHECKed. Rows are made when asked for.
TensorSource pruned_source(RowStream& stream, const NamedTensor& tensor, const Recipe& recipe);

}  // namespace tandem
