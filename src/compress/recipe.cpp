#include "compress/recipe.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "compress/sparse_files.h"

namespace tandem {
namespace {

constexpr int64_t kDefaultGroup = 64;
constexpr Encoding kGgufEncodings[] = {kBF16, kF16, kQ8_0, kQ6_K, kQ4_K, kQ4_1, kQ4_0};

bool is_gguf_name(const std::string& name) {
  return std::ranges::any_of(kGgufEncodings, [&](const Encoding& e) { return e.name() == name; });
}

std::string gguf_names() {
  std::string names;
  for (const Encoding& encoding : kGgufEncodings) {
    names += (names.empty() ? "" : ", ") + encoding.name();
  }
  return names + ", hqq";
}

constexpr const char* kFolderNames =
    "bf16, f32, int8, llm-int8, int4, int3, int2, fp8, fp8-tensor, fp8-block, fp8-deepseek, nf4, nf4-dq, "
    "fp4, fp4-dq, codebook, sparse-24, magnitude-24, random-24, gqa-mean, gqa-aligned, off-grid, "
    "off-grid-f32";

const char* fp8_scales_name(Fp8Scales scales) {
  switch (scales) {
    case Fp8Scales::row: return "row";
    case Fp8Scales::tensor: return "tensor";
    case Fp8Scales::block: return "block";
    case Fp8Scales::deepseek: return "deepseek";
  }
  return "?";
}

// nf4, fp4, each with "-dq", and codebook.
Recipe table_recipe(const std::string& name, int64_t group) {
  if (group == 0) group = kNF4.group;
  if (group < 32 || group > 4096 || (group & (group - 1)) != 0) {
    fail(ErrorKind::usage, "recipe {}: group {}, expected a power of two from 32 to 4096", name, group);
  }
  const Packing packing = name == "codebook"        ? Packing::codebook
                          : name.starts_with("nf4") ? Packing::nf4
                                                    : Packing::fp4;
  Recipe recipe{name, {packing, ScaleType::f32, group}, group};
  recipe.is_nested = name.ends_with("-dq");
  return recipe;
}

Recipe fp8_recipe(const std::string& name) {
  Recipe recipe{name, fp8_channel(ScaleType::bf16)};
  if (name == "fp8-channel") return recipe;
  if (name == "fp8-tensor") {
    recipe.fp8_scales = Fp8Scales::tensor;
  } else if (name == "fp8-block") {
    recipe.encoding = fp8_block(ScaleType::bf16);
    recipe.fp8_scales = Fp8Scales::block;
  } else if (name == "fp8-deepseek") {
    recipe.encoding = fp8_block(ScaleType::f32);
    recipe.fp8_scales = Fp8Scales::deepseek;
  } else {
    fail(ErrorKind::usage,
         "recipe {}: unknown, expected fp8, fp8-channel, fp8-tensor, fp8-block or fp8-deepseek", quote(name));
  }
  return recipe;
}

Recipe gguf_recipe(const std::string& name) {
  if (name == "hqq") return {name, kQ4_1, 0, Container::gguf, /*moves_zeros=*/true};
  for (const Encoding& encoding : kGgufEncodings) {
    if (encoding.name() == name) return {name, encoding, 0, Container::gguf};
  }
  const bool is_folder_name = name == "int8" || name == "llm-int8" || name == "int4" ||
                              name == "codebook" || name == "sparse-24" ||
                              name.starts_with("fp8") || name.starts_with("nf4") || name.starts_with("fp4");
  fail(ErrorKind::usage, "recipe {}: {} a GGUF file, expected one of {}", quote(name),
       is_folder_name ? "is none that can be held by" : "unknown for", gguf_names());
}

void refuse_group(const std::string& name, int64_t group) {
  if (group == 0) return;
  fail(ErrorKind::usage, "recipe {}: has no groups, found --group {}", name, group);
}

Recipe gqa_recipe(const std::string& name, int64_t group, Container container, int64_t kv_heads) {
  refuse_group(name, group);
  if (container == Container::gguf) {
    fail(ErrorKind::usage, "recipe {}: writes a Hugging Face folder, found a GGUF file", name);
  }
  if (kv_heads < 1) {
    fail(ErrorKind::usage, "recipe {}: --kv-heads is missing, expected a number of heads", name);
  }
  Recipe recipe{name, kBF16};
  recipe.kv_heads = kv_heads;
  recipe.aligns_heads = name == "gqa-aligned";
  return recipe;
}

}  // namespace

Recipe recipe_from_name(const std::string& name, int64_t group, Container container,
                        int64_t kv_heads) {
  if (name == "gqa-mean" || name == "gqa-aligned") {
    return gqa_recipe(name, group, container, kv_heads);
  }
  if (kv_heads != 0) {
    fail(ErrorKind::usage, "recipe {}: leaves KV heads as they are, found --kv-heads {}",
         quote(name), kv_heads);
  }
  if (container == Container::gguf) {
    const Recipe recipe = gguf_recipe(name);
    refuse_group(name, group);
    return recipe;
  }
  if (name == "random-24" || name == "magnitude-24") {
    refuse_group(name, group);
    Recipe recipe{name, kBF16};
    recipe.pruning = name == "random-24" ? Pruning::random : Pruning::magnitude;
    return recipe;
  }
  if (name == "int4") {
    if (group == 0) group = kDefaultGroup;
    // A kernel reads a group as whole blocks of activations, which hold 32 channels.
    if (group < kActBlock || group % kActBlock != 0) {
      fail(ErrorKind::usage, "recipe int4: group {}, expected a multiple of {}", group, kActBlock);
    }
    return {name, int4_group(group, ScaleType::bf16), group};
  }
  if (name == "nf4" || name == "fp4" || name == "nf4-dq" || name == "fp4-dq" || name == "codebook") {
    return table_recipe(name, group);
  }
  if (name.starts_with("fp8-")) {
    refuse_group(name, group);
    return fp8_recipe(name);
  }
  if (name == "sparse-24") {
    refuse_group(name, group);
    return {name, kBF16_24};
  }
  if (name == "llm-int8") {
    refuse_group(name, group);
    return {name, kLlmInt8};
  }
  if (name == "f32" || name == "off-grid" || name == "off-grid-f32") {
    refuse_group(name, group);
    Recipe recipe{name, name == "off-grid" ? kBF16 : kF32};
    recipe.off_grid = name != "f32";
    return recipe;
  }
  if (name != "bf16" && name != "int8" && name != "fp8") {
    if (is_gguf_name(name)) {
      fail(ErrorKind::usage,
           "recipe {}: a Hugging Face folder cannot hold it, expected {}, or an output named *.gguf",
           name, kFolderNames);
    }
    fail(ErrorKind::usage,
         "recipe {}: unknown, expected one of {}; for GGUF {}", quote(name), kFolderNames,
         gguf_names());
  }
  refuse_group(name, group);
  return {name,
          name == "bf16"   ? kBF16
          : name == "int8" ? int8_channel(ScaleType::bf16)
                           : fp8_channel(ScaleType::bf16),
          0};
}

bool is_grid_recipe(const std::string& name, const GridOptions& options) {
  const bool hf = options.format.empty() || options.format == "hf";
  return !hf || options.asymmetric || options.per_channel || name == "int3" || name == "int2" ||
         (name == "int8" && options.group != 0);
}

Recipe grid_recipe(const std::string& name, const GridOptions& options) {
  if (name != "int8" && name != "int4" && name != "int3" && name != "int2") {
    fail(ErrorKind::usage, "recipe {}: has no integers in groups, expected int8, int4, int3 or int2",
         quote(name));
  }
  if (options.per_channel && options.group != 0) {
    fail(ErrorKind::usage, "--group {} and --per-channel: expected one of them", options.group);
  }
  if (options.group % kActBlock != 0) {
    fail(ErrorKind::usage, "recipe {}: group {}, expected a multiple of {}", name, options.group,
         kActBlock);
  }
  GridRecipe integers;
  integers.grid.bits = name.back() - '0';
  integers.grid.group = options.per_channel  ? 0
                        : options.group != 0 ? options.group
                                             : kDefaultGroup;
  integers.grid.symmetric = !options.asymmetric;
  const bool hf = options.format.empty() || options.format == "hf";
  integers.grid.scale_type = hf ? ScaleType::bf16 : ScaleType::f16;
  integers.layout = options.format == "gptq"      ? GridLayout::gptq
                    : options.format == "gptq_v2" ? GridLayout::gptq_v2
                    : options.format == "awq"     ? GridLayout::awq
                    : integers.grid.bits == 8     ? GridLayout::int_quantized
                                                  : GridLayout::pack_quantized;
  Recipe recipe{name, kBF16, integers.grid.group};
  recipe.integers = integers;
  return recipe;
}

namespace {

std::string bitsandbytes_config_json(const Recipe& recipe) {
  const bool is_nibbles = recipe.encoding.is_lookup();
  const Json config = {
      {"quant_method", "bitsandbytes"},
      {"load_in_4bit", is_nibbles},
      {"load_in_8bit", !is_nibbles},
      {"bnb_4bit_quant_type", recipe.encoding.packing == Packing::nf4        ? "nf4"
                              : recipe.encoding.packing == Packing::codebook ? "codebook"
                                                                             : "fp4"},
      {"bnb_4bit_use_double_quant", recipe.is_nested},
      {"bnb_4bit_compute_dtype", "bfloat16"},
      {"bnb_4bit_quant_storage", "uint8"},
      {"llm_int8_enable_fp32_cpu_offload", false},
      {"llm_int8_has_fp16_weight", false},
      {"llm_int8_skip_modules", Json::array({"lm_head"})},
      {"llm_int8_threshold", 6.0}};
  return dump_json(config, 2);
}

std::string deepseek_config_json() {
  const Json config = {{"quant_method", "fp8"},
                       {"activation_scheme", "dynamic"},
                       {"fmt", "e4m3"},
                       {"weight_block_size", {kFp8Block, kFp8Block}},
                       {"modules_to_not_convert", Json::array({"lm_head"})}};
  return dump_json(config, 2);
}

std::string masked_config_json() {
  return dump_json({{"quant_method", "compressed-tensors"},
                    {"sparsity_config", sparsity_config_json({"lm_head"})}},
                   2);
}

}  // namespace

Json recipe_json(const Recipe& recipe) {
  Json json = {{"container", recipe.container == Container::gguf ? "gguf" : "hf"},
               {"group", recipe.group}};
  if (recipe.integers) {
    json["bits"] = recipe.integers->grid.bits;
    json["symmetric"] = recipe.integers->grid.symmetric;
    json["layout"] = grid_layout_name(recipe.integers->layout);
  } else {
    json["encoding"] = recipe.encoding.name();
  }
  if (recipe.off_grid) json["off_grid"] = {{"seed", recipe.seed}, {"factors", {0.8, 1.25}}};
  if (recipe.encoding.is_fp8()) json["fp8_scales"] = fp8_scales_name(recipe.fp8_scales);
  if (recipe.is_nested) json["double_quantization"] = true;
  if (!recipe.codebook.empty()) json["codebook"] = recipe.codebook;
  return json;
}

std::vector<float> read_codebook(const std::filesystem::path& path) {
  const std::string text = read_text_file(path, 4096);
  std::vector<float> values;
  constexpr const char* kBetween = " \t\r\n,[]";
  for (size_t at = text.find_first_not_of(kBetween); at != std::string::npos;) {
    const size_t end = std::min(text.find_first_of(kBetween, at), text.size());
    float value = 0;
    const auto [last, error] = std::from_chars(text.data() + at, text.data() + end, value);
    if (error != std::errc() || last != text.data() + end || !(std::fabs(value) <= 1)) {
      fail(ErrorKind::usage, "{}: found {}, expected 16 numbers within -1 and 1", path.string(),
           quote(text.substr(at, end - at)));
    }
    values.push_back(value);
    at = text.find_first_not_of(kBetween, end);
  }
  if (values.size() != 16 || std::ranges::adjacent_find(values, std::not_equal_to<>()) == values.end()) {
    fail(ErrorKind::usage, "{}: {} numbers, expected 16 that are not all the same", path.string(),
         values.size());
  }
  return values;
}

std::string quantization_config_json(const Recipe& recipe) {
  if (!recipe.quantizes()) return {};
  if (recipe.integers) {
    return grid_config_json(recipe.integers->layout, {{recipe.integers->grid}}, {"lm_head"});
  }
  if (recipe.encoding.is_lookup() || recipe.encoding.packing == Packing::llm_int8) {
    return bitsandbytes_config_json(recipe);
  }
  if (recipe.fp8_scales == Fp8Scales::deepseek) return deepseek_config_json();
  if (recipe.encoding.is_sparse()) return masked_config_json();
  const bool is_float = recipe.encoding.is_fp8(), is_whole_row = recipe.group == 0;
  const char* type = is_float ? "float" : "int";
  Json weights = {{"num_bits", recipe.encoding.bits()},
                  {"type", type},
                  {"symmetric", true},
                  {"strategy", is_whole_row ? "channel" : "group"},
                  {"group_size", nullptr},
                  {"dynamic", false}};
  if (!is_whole_row) weights["group_size"] = recipe.group;
  Json activations = nullptr;
  if (is_whole_row) {
    activations = {{"num_bits", 8},       {"type", type},          {"symmetric", true},
                   {"strategy", "token"}, {"group_size", nullptr}, {"dynamic", true}};
  }
  if (recipe.fp8_scales == Fp8Scales::tensor) weights["strategy"] = "tensor";
  if (recipe.fp8_scales == Fp8Scales::block) {
    weights["strategy"] = "block";
    weights["block_structure"] = {kFp8Block, kFp8Block};
    activations["strategy"] = "group";
    activations["group_size"] = kFp8Block;
  }
  const Json scheme = {{"targets", Json::array({"Linear"})},
                       {"weights", weights},
                       {"input_activations", activations},
                       {"output_activations", nullptr}};
  const Json config = {{"quant_method", "compressed-tensors"},
                       {"format", is_float       ? "float-quantized"
                                  : is_whole_row ? "int-quantized"
                                                 : "pack-quantized"},
                       {"quantization_status", "compressed"},
                       {"config_groups", {{"group_0", scheme}}},
                       {"ignore", Json::array({"lm_head"})},
                       {"kv_cache_scheme", nullptr},
                       {"global_compression_ratio", nullptr}};
  return dump_json(config, 2);
}

}  // namespace tandem
