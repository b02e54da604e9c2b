// The name of a variant in a table of methods -> the recipe that makes it.
#pragma once

#include <optional>
#include <string>

#include "compress/recipe.h"
#include "compress/step_recipe.h"
#include "formats/checkpoint.h"

namespace tandem {

struct VariantRecipe {
  std::string name;  // of the row: "int4 g64", "gptq g128", "q4_k", "mine"
  Recipe recipe;     // where there are no steps
  std::optional<StepRecipe> steps;
  bool reads_text = false;  // whether calibration rows go into it
};

// A recipe's name, with "-gN" or " gN" behind it for groups of N; a recipe over calibration text
// takes its group in its last step. GGUF's encodings stand for files in GGUF, "gqa-aligned" and
// "gqa-mean" for the most KV heads below the model's own that divide them, FILE.toml for the recipe
// in it. Throws usage for what no recipe or this model does not allow, bad_file for a file that
// cannot be read.
VariantRecipe variant_recipe(const std::string& name, const ModelConfig& config);

}  // namespace tandem
