#include "compress/recipe.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"

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
  return names;
}

Recipe gguf_recipe(const std::string& name) {
  for (const Encoding& encoding : kGgufEncodings) {
    if (encoding.name() == name) return {name, encoding, 0, Container::gguf};
  }
  const bool is_folder_name =
      name == "int8" || name == "llm-int8" || name == "int4" || name == "fp8" || name == "nf4";
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
  if (name == "nf4") {
    refuse_group(name, group);
    return {name, kNF4, kNF4.group};
  }
  if (name == "llm-int8") {
    refuse_group(name, group);
    return {name, kLlmInt8};
  }
  if (name != "bf16" && name != "int8" && name != "fp8") {
    if (is_gguf_name(name)) {
      fail(ErrorKind::usage,
           "recipe {}: a Hugging Face folder cannot hold it, expected bf16, int8, llm-int8, int4, "
           "fp8 or nf4, or an output named *.gguf",
           name);
    }
    fail(ErrorKind::usage,
         "recipe {}: unknown, expected one of bf16, int8, llm-int8, int4, fp8, nf4, magnitude-24, "
         "random-24, gqa-mean, gqa-aligned; for GGUF {}",
         quote(name), gguf_names());
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
    fail(ErrorKind::usage, "recipe {}: has no integers in groups, expected int8, int4, int3 or int2", quote(name));
  }
  if (options.per_channel && options.group != 0) {
    fail(ErrorKind::usage, "--group {} and --per-channel: expected one of them", options.group);
  }
  if (options.group % kActBlock != 0) {
    fail(ErrorKind::usage, "recipe {}: group {}, expected a multiple of {}", name, options.group, kActBlock);
  }
  GridRecipe integers;
  integers.grid.bits = name.back() - '0';
  integers.grid.group = options.per_channel ? 0 : options.group != 0 ? options.group : kDefaultGroup;
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
      {"bnb_4bit_quant_type", recipe.encoding.packing == Packing::nf4 ? "nf4" : "fp4"},
      {"bnb_4bit_use_double_quant", false},
      {"bnb_4bit_compute_dtype", "bfloat16"},
      {"bnb_4bit_quant_storage", "uint8"},
      {"llm_int8_enable_fp32_cpu_offload", false},
      {"llm_int8_has_fp16_weight", false},
      {"llm_int8_skip_modules", Json::array({"lm_head"})},
      {"llm_int8_threshold", 6.0}};
  return dump_json(config, 2);
}

}  // namespace

std::string quantization_config_json(const Recipe& recipe) {
  if (!recipe.quantizes()) return {};
  if (recipe.integers) {
    return grid_config_json(recipe.integers->layout, {{recipe.integers->grid}}, {"lm_head"});
  }
  if (recipe.encoding.is_lookup() || recipe.encoding.packing == Packing::llm_int8) {
    return bitsandbytes_config_json(recipe);
  }
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
