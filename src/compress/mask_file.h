// Published 2:4 masks, as MaskLLM gives them: an .npz with an array of bytes for each matrix, named
// "model.layers.0.self_attn.q_proj.weight.mask", whose bits are the mask [N, K] row by row, the
// highest bit of a byte first.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/npz.h"

namespace tandem {

// keep[N, K] of a module, "model.layers.0.self_attn.q_proj"; 1: kept. K is a multiple of 4. Throws
// bad_file naming the array when it is missing or of another size, or when a group of four does
// not keep two.
std::vector<uint8_t> read_mask(const NpzFile& file, const std::string& module, int64_t N,
                               int64_t K);

}  // namespace tandem
