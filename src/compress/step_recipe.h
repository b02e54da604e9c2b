// A recipe of steps: a TOML file, or one that is built in (docs/recipes.md).
//
//   format = "compressed-tensors"        # or "sparse-24-bitmask", "gptq", "gptq_v2", "awq"
//   activations = "none"                 # or "dynamic", "static": 8-bit inputs for 8-bit weights
//
//   [[step]]
//   method = "gptq"
//   bits = 4                             # the method's options
//
//   [[step.override]]                    # other options for the matrices that a glob names
//   match = "model.layers.0.*"
//   bits = 8
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compress/step_options.h"

namespace tandem {

// A format of compressed-tensors too: 2:4 matrices as such, not dense with zeros.
inline constexpr std::string_view kSparseFormat = "sparse-24-bitmask";

struct StepRecipe {
  std::string name;  // the built-in's, or the file's
  std::string text;  // as read
  std::string format = "compressed-tensors";
  // What 8-bit weights meet: "none": floats; "dynamic": 8 bits, a scale a token; "static": 8 bits, a
  // scale a matrix that calibration finds.
  std::string activations = "none";
  std::vector<StepSpec> steps;
  std::optional<OptionTable> mixed;  // compress/mixed_recipe.h reads it

  bool is_sparse() const { return format == kSparseFormat; }
  bool is_compressed_tensors() const { return is_sparse() || format == "compressed-tensors"; }
};

// Whether the name is a built-in recipe or ends in ".toml".
bool names_step_recipe(const std::string& name);

// Throws usage with the file and the line; bad_file when the file cannot be read.
StepRecipe read_step_recipe(const std::string& name);
StepRecipe parse_step_recipe(std::string_view text, const std::string& name);

// Sets what is written, one of the formats, and with it the type of the scales.
void set_format(StepRecipe* recipe, const std::string& format);

// "gptq", ...
std::vector<std::string> built_in_recipes();

}  // namespace tandem
