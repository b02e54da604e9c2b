#include "cli/variant_recipe.h"

#include <charconv>
#include <filesystem>

#include "base/error.h"
#include "compress/compress_steps.h"

namespace tandem {
namespace {

struct GroupedName {
  std::string name;
  int64_t group = 0;  // 0: none is named
};

// "int4-g64" -> int4, 64.
GroupedName split_group(const std::string& name) {
  const size_t g = name.rfind('g');
  if (g == std::string::npos || g == 0 || (name[g - 1] != '-' && name[g - 1] != ' ')) return {name};
  GroupedName split{name.substr(0, g - 1)};
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + g + 1, end, split.group);
  return parsed.ec == std::errc{} && parsed.ptr == end && split.group > 0 ? split
                                                                          : GroupedName{name};
}

StepRecipe step_recipe(const GroupedName& name) {
  StepRecipe recipe = read_step_recipe(name.name);
  if (name.group == 0) return recipe;
  return parse_step_recipe(recipe.text + fmt::format("group = {}\n", name.group), name.name);
}

int64_t fewer_kv_heads(const std::string& name, const ModelConfig& config) {
  for (int64_t heads = config.num_kv_heads - 1; heads > 0; --heads) {
    if (config.num_kv_heads % heads == 0) return heads;
  }
  fail(ErrorKind::usage, "recipe {}: the model has one KV head, expected several", name);
}

}  // namespace

VariantRecipe variant_recipe(const std::string& name, const ModelConfig& config) {
  const GroupedName split = split_group(name);
  VariantRecipe variant;
  variant.name = split.name;
  if (names_step_recipe(split.name)) {
    variant.name = std::filesystem::path(split.name).stem().string();
    variant.steps = step_recipe(split);
    if (variant.steps->mixed) {
      fail(ErrorKind::usage, "{}: has a [mixed] table, whose bits `tandem compress` chooses",
           quote(split.name, 400));
    }
    variant.reads_text = needs_inputs(make_steps(*variant.steps, config));
  } else if (split.name == "gqa-aligned" || split.name == "gqa-mean") {
    variant.recipe = recipe_from_name(split.name, split.group, Container::hf_folder,
                                      fewer_kv_heads(split.name, config));
    variant.reads_text = true;
  } else {
    const bool is_gguf = split.name == "f16" || split.name.starts_with("q");
    variant.recipe =
        recipe_from_name(split.name, split.group, is_gguf ? Container::gguf : Container::hf_folder);
  }
  if (split.group != 0) variant.name += fmt::format(" g{}", split.group);
  return variant;
}

}  // namespace tandem
