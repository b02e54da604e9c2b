// A recipe: the name a user gives -> what each matrix of the layers becomes.
#pragma once

#include <cstdint>
#include <string>

#include "tensor/encoding.h"

namespace tandem {

struct Recipe {
  std::string name;   // "bf16", "int8", "int4"
  Encoding encoding;  // of the layers' matrices; embedding, norms and lm_head are always bf16
  int64_t group = 0;  // elements of a row that share a scale; 0: the whole row, or no scale

  bool quantizes() const { return !encoding.is_plain(); }
};

// group 0 means the recipe's own (int4: 64). Throws usage for an unknown name, naming those there
// are, and for a group the recipe has no use for.
Recipe recipe_from_name(const std::string& name, int64_t group = 0);

// compressed-tensors' description of the recipe, the "quantization_config" of config.json; empty
// when the recipe does not quantize.
std::string quantization_config_json(const Recipe& recipe);

}  // namespace tandem
