// marlin-24 of compressed-tensors: 2:4 in 4 bits in the order of Sparse-Marlin's kernel, of W[N,
// K]:
//   NAME.weight_packed int32 [K/32, 2 N], NAME.meta int16 [K/32, 2 N], NAME.scale_packed [G, N]
// The values kept, W'[N, K/2], lie in tiles of 16 x 16 (k, n), four neighbouring tiles of n as one
// permutation of 1024 nibbles; meta [N, K/16] has four groups' places in each word, rows and
// columns in the order of CUTLASS for SM80.
#pragma once

#include <string>

#include "formats/repacked.h"
#include "formats/safetensors.h"

namespace tandem {

// group: weights of a row that share a scale; 0: the whole row. The source is sparse. Views into
// the file. Throws bad_file, opening with `where`, for shapes that do not fit each other.
IntegerSource marlin24_source(const SafetensorsEntry& packed, const SafetensorsEntry& meta,
                              const SafetensorsEntry& scale, int64_t group,
                              const std::string& where);

}  // namespace tandem
