// The part of a Hugging Face folder that bitsandbytes defines: 4-bit linear layers become Weights
// of nf4 or fp4, 8-bit ones of llm_int8.
//   NAME.weight U8 [N K / 2, 1]: two codes a byte along K, the first in the high nibble
//   NAME.weight.absmax F32 [N K / 64], or, when it is quantized itself (double quantization), U8 of
//   the same shape with NAME.weight.nested_absmax F32 [blocks of 256], NAME.weight.nested_quant_map
//   F32 [256] and an offset: absmax = nested_quant_map[code] * nested_absmax + offset
//   NAME.weight.quant_map F32 [16]: must be the type's own, but for type "codebook", which is
//   tandem's: any 16 numbers, which the library does not load
//   NAME.weight.quant_state.bitsandbytes__TYPE U8: JSON with shape, block sizes and the offset
// 8 bits: NAME.weight I8 [N, K], NAME.SCB F32 [N], the rows' largest magnitudes, and perhaps
// NAME.weight_format U8, which must be 0: row-major.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "formats/checkpoint.h"
#include "formats/safetensors.h"

namespace tandem {

struct BitsandbytesConfig {
  Packing packing = Packing::nf4;
  std::vector<std::string> skipped;  // modules left in plain numbers: "lm_head"
};

// Whether config.json's quantization_config is of bitsandbytes.
bool is_bitsandbytes(const Json& json);

// Throws bad_file naming what this version does not know.
BitsandbytesConfig read_bitsandbytes_config(const Json& json, const std::string& where);

// The tensors of a file as weights, in file order. absmax that is quantized, and the scales of 8-bit
// rows, are decoded into buffers that `memory` gets. Throws bad_file.
std::vector<NamedTensor> read_bitsandbytes_weights(
    const SafetensorsFile& file, const BitsandbytesConfig& config, const std::string& where,
    std::vector<std::shared_ptr<const Buffer>>* memory);

}  // namespace tandem
