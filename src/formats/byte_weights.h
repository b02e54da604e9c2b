// Matrices of bytes in safetensors files, E4M3 or int8, whose scales stand for a row, for the whole
// tensor or for a block, and whose activations may have a scale in the file: what the dialects of
// compressed-tensors, vLLM and DeepSeek have in common.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "formats/safetensors.h"
#include "tensor/buffer.h"
#include "tensor/weight.h"

namespace tandem {

struct ByteScheme {
  enum class Scales : uint8_t { row, tensor, block };
  enum class Inputs : uint8_t { plain, dynamic, fixed };  // activations: as they are, scales made, read
  bool is_float = true;  // E4M3; else int8
  Scales scales = Scales::row;
  Inputs inputs = Inputs::dynamic;
  int64_t block_rows = 0;  // Scales::block; a block has kFp8Block columns

  // Throws bad_file where no kernel has this combination.
  Packing packing(const std::string& where) const;
};

// What compressed-tensors says of a group of modules: "weights", and "input_activations" or null.
// Throws bad_file naming what this version does not know.
ByteScheme read_byte_scheme(const Json& weights, const Json* activations, const std::string& where);

// [rows, columns] of a block from JSON; throws bad_file unless columns is kFp8Block.
int64_t read_block_rows(const Json& json, const std::string& where);

// f32, f16 or bf16; throws bad_file.
ScaleType scale_type_of(const SafetensorsEntry& scale, const std::string& where);

// codes [N, K] with scale [N, 1] or [N] (row), one number (tensor) or [N / block_rows, K / kFp8Block],
// both rounded up (block). Scales that stand for more than one row are repeated for each of them, in a
// buffer that `memory` gets. input_scale: one number; null where the scheme needs none. Throws
// bad_file, starting with `where`.
Weight read_byte_weight(const ByteScheme& scheme, const SafetensorsEntry& codes,
                        const SafetensorsEntry& scale, const SafetensorsEntry* input_scale,
                        const std::string& where,
                        std::vector<std::shared_ptr<const Buffer>>* memory);

}  // namespace tandem
