// A recipe: the name a user gives -> what each matrix of the layers becomes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "compress/grid_files.h"
#include "tensor/encoding.h"

namespace tandem {

// What a model is written as.
enum class Container : uint8_t { hf_folder, gguf };

// Which two of each four neighbouring weights of a row are kept (mask24.h), before they are encoded.
enum class Pruning : uint8_t { none, random, magnitude };

// What an FP8 scale stands for: a row, the whole matrix, or a block of 128 x 128, in the files of
// compressed-tensors (bf16) or of DeepSeek (f32).
enum class Fp8Scales : uint8_t { row, tensor, block, deepseek };

// Integers with a scale and a zero point a group, in the layout of a library.
struct GridRecipe {
  IntegerGrid grid;
  GridLayout layout = GridLayout::pack_quantized;
};

struct Recipe {
  std::string name;   // folder: "bf16", "f32", "int8", "llm-int8", "int4", "fp8", "nf4", "off-grid", "off-grid-f32"; GGUF: "bf16", "f16", "q8_0", "q4_k", ...
  Encoding encoding;  // folder: of the layers' matrices, the rest is bf16; GGUF: of all matrices
  int64_t group = 0;  // elements of a row that share a scale; 0: the whole row, or no scale
  Container container = Container::hf_folder;
  bool moves_zeros = false;  // GGUF: the layers' q4_1 as HQQ finds it (compress/hqq.h)
  bool off_grid = false;     // the numbers of compress/off_grid.h, drawn from `seed`
  Fp8Scales fp8_scales = Fp8Scales::row;
  bool is_nested = false;            // absmax of nf4 and fp4 as bytes: double quantization
  std::vector<float> codebook = {};  // [16], codebook only
  std::optional<GridRecipe> integers = {};  // of the layers' matrices, instead of `encoding`
  Pruning pruning = Pruning::none;  // of the layers' matrices
  int64_t kv_heads = 0;             // KV heads that a layer is left with; 0: those it has
  bool aligns_heads = false;        // heads that become one are turned towards one another first
  uint64_t seed = 0;                // of random pruning, off-grid factors, the search for groups of heads

  bool quantizes() const { return integers || !encoding.is_plain(); }
};

// What a user may say of integers besides their bits.
struct GridOptions {
  std::string format;        // "hf", "gptq", "gptq_v2", "awq"
  int64_t group = 0;         // 0: the recipe's own, 64
  bool asymmetric = false;   // a zero point a group
  bool per_channel = false;  // one group a row
};

// Whether a recipe of this name and these options is one of recipe_from_name's or is made of integers
// with groups as grid_recipe makes them.
bool is_grid_recipe(const std::string& name, const GridOptions& options);
// "int8", "int4", "int3", "int2". Throws usage for another name and for options that contradict.
Recipe grid_recipe(const std::string& name, const GridOptions& options);

// The GQA recipes want kv_heads, the others refuse it. group 0 means the recipe's own (int4, nf4,
// fp4, codebook: 64). Throws usage for a name that is unknown or that the container cannot hold,
// naming those there are, and for a group the recipe has no use for.
Recipe recipe_from_name(const std::string& name, int64_t group = 0,
                        Container container = Container::hf_folder, int64_t kv_heads = 0);

// All that a recipe says, for a manifest.
Json recipe_json(const Recipe& recipe);

// 16 numbers within -1 and 1, at least two of them different, with white space or commas between them.
// Throws usage naming the file.
std::vector<float> read_codebook(const std::filesystem::path& path);

// compressed-tensors' description of the recipe, the "quantization_config" of config.json; empty
// when the recipe does not quantize.
std::string quantization_config_json(const Recipe& recipe);

}  // namespace tandem
