#include "compress/step_recipe.h"

#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

#include <span>

#include "base/error.h"
#include "base/file.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxRecipeBytes = 1 << 20;

struct BuiltIn {
  const char* name;
  const char* text;
};

constexpr BuiltIn kBuiltIns[] = {
    {"rtn", "[[step]]\nmethod = \"rtn\"\n"},
    {"gptq", "[[step]]\nmethod = \"gptq\"\n"},
    {"wanda", "[[step]]\nmethod = \"wanda\"\n"},
    {"sparsegpt", "[[step]]\nmethod = \"sparsegpt\"\n"},
    {"learned-mask", "[[step]]\nmethod = \"learned-mask\"\n"},
    {"sparsegpt-int4", "[[step]]\nmethod = \"sparsegpt\"\n\n[[step]]\nmethod = \"gptq\"\n"},
    {"sparsegpt-int8",
     "activations = \"dynamic\"\n\n[[step]]\nmethod = \"sparsegpt\"\n\n"
     "[[step]]\nmethod = \"gptq\"\nbits = 8\ngroup = 0\n"},
    {"sparsegpt-fp8",
     "activations = \"dynamic\"\n\n[[step]]\nmethod = \"sparsegpt\"\n\n"
     "[[step]]\nmethod = \"fp8\"\n"},
    {"awq", "[[step]]\nmethod = \"awq\"\n"},
    {"hqq", "[[step]]\nmethod = \"hqq\"\n"},
    {"fp8-static", "activations = \"static\"\n\n[[step]]\nmethod = \"fp8\"\n"},
    {"smoothquant",
     "activations = \"dynamic\"\n\n[[step]]\nmethod = \"smoothquant\"\n\n"
     "[[step]]\nmethod = \"rtn\"\nbits = 8\ngroup = 0\n"},
};

constexpr const char* kFormats[] = {"compressed-tensors", "sparse-24-bitmask", "gptq", "gptq_v2", "awq"};
constexpr const char* kActivations[] = {"none", "dynamic", "static"};

class RecipeReader {
 public:
  explicit RecipeReader(std::string name) : name_(std::move(name)) {}

  StepRecipe read(std::string_view text) {
    StepRecipe recipe;
    recipe.name = name_;
    recipe.text = text;
    const toml::table root = parse(text);
    for (const auto& [key, node] : root) {
      if (key == "format") {
        recipe.format = one_of(node, "format", kFormats);
      } else if (key == "activations") {
        recipe.activations = one_of(node, "activations", kActivations);
      } else if (key == "mixed") {
        recipe.mixed = read_mixed(node);
      } else if (key == "step") {
        for (const toml::node& step : tables(node, "step")) {
          recipe.steps.push_back(read_step(*step.as_table()));
        }
      } else {
        refuse_key(node, key.str(), {"format", "activations", "mixed", "step"});
      }
    }
    if (recipe.steps.empty()) {
      fail(ErrorKind::usage, "{}: has no steps, expected at least one [[step]]", name_);
    }
    set_format(&recipe, recipe.format);
    return recipe;
  }

 private:
  toml::table parse(std::string_view text) const {
    try {
      return toml::parse(text);
    } catch (const toml::parse_error& error) {
      fail(ErrorKind::usage, "{}:{}: {}", name_, error.source().begin.line,
           quote(error.description(), 200));
    }
  }

  std::string where(const toml::node& node) const {
    return fmt::format("{}:{}", name_, node.source().begin.line);
  }

  [[noreturn]] void refuse_key(const toml::node& node, std::string_view key,
                               const std::vector<std::string>& known) const {
    std::string all;
    for (const std::string& each : known) all += (all.empty() ? "" : ", ") + each;
    fail(ErrorKind::usage, "{}: unknown key {}{}; expected {}", where(node), quote(key),
         nearest_hint(key, known), all);
  }

  const toml::array& tables(const toml::node& node, std::string_view key) const {
    if (!node.is_array_of_tables()) {
      fail(ErrorKind::usage, "{}: {} is no table, expected [[{}]]", where(node), key, key);
    }
    return *node.as_array();
  }

  std::string text_of(const toml::node& node, std::string_view key) const {
    const auto text = node.value_exact<std::string>();
    if (!text) fail(ErrorKind::usage, "{}: {}: expected a text", where(node), quote(key));
    return *text;
  }

  std::string one_of(const toml::node& node, std::string_view key,
                     std::span<const char* const> choices) const {
    const std::string found = text_of(node, key);
    std::string all;
    for (const char* known : choices) {
      if (found == known) return found;
      all += (all.empty() ? "" : ", ") + std::string(known);
    }
    fail(ErrorKind::usage, "{}: {} {}, expected one of {}", where(node), key, quote(found), all);
  }

  OptionValue option(const toml::node& node, std::string_view key) const {
    OptionValue value;
    value.where = where(node);
    if (node.is_boolean()) {
      value.value = *node.value_exact<bool>();
    } else if (node.is_integer()) {
      value.value = *node.value_exact<int64_t>();
    } else if (node.is_floating_point()) {
      value.value = *node.value_exact<double>();
    } else if (node.is_string()) {
      value.value = *node.value_exact<std::string>();
    } else {
      fail(ErrorKind::usage, "{}: {}: expected true or false, a number or a text", value.where,
           quote(key));
    }
    return value;
  }

  StepSpec read_step(const toml::table& table) const {
    StepSpec step;
    step.options.where = where(table);
    for (const auto& [key, node] : table) {
      if (key == "method") {
        step.method = text_of(node, "method");
      } else if (key == "only") {
        step.only = text_of(node, "only");
      } else if (key == "override") {
        for (const toml::node& each : tables(node, "step.override")) {
          step.overrides.push_back(read_override(*each.as_table()));
        }
      } else {
        step.options.values.emplace(key.str(), option(node, key.str()));
      }
    }
    if (step.method.empty()) {
      fail(ErrorKind::usage, "{}: a step without a method, expected method = \"NAME\"",
           step.options.where);
    }
    return step;
  }

  OptionTable read_mixed(const toml::node& node) const {
    if (!node.is_table()) {
      fail(ErrorKind::usage, "{}: mixed is no table, expected [mixed]", where(node));
    }
    OptionTable table;
    table.where = where(node);
    for (const auto& [key, each] : *node.as_table()) {
      table.values.emplace(key.str(), option(each, key.str()));
    }
    return table;
  }

  StepOverride read_override(const toml::table& table) const {
    StepOverride override_;
    override_.options.where = where(table);
    for (const auto& [key, node] : table) {
      if (key == "match") {
        override_.glob = text_of(node, "match");
      } else if (key == "skip") {
        const auto skip = node.value_exact<bool>();
        if (!skip) fail(ErrorKind::usage, "{}: skip: expected true or false", where(node));
        override_.skip = *skip;
      } else {
        override_.options.values.emplace(key.str(), option(node, key.str()));
      }
    }
    if (override_.glob.empty()) {
      fail(ErrorKind::usage, "{}: an override without a match, expected match = \"GLOB\"",
           override_.options.where);
    }
    return override_;
  }

  std::string name_;
};

}  // namespace

std::vector<std::string> built_in_recipes() {
  std::vector<std::string> names;
  for (const BuiltIn& recipe : kBuiltIns) names.emplace_back(recipe.name);
  return names;
}

void set_format(StepRecipe* recipe, const std::string& format) {
  recipe->format = format;
  const bool is_half = !recipe->is_compressed_tensors();
  for (StepSpec& step : recipe->steps) {
    step.scale_type = is_half ? ScaleType::f16 : ScaleType::bf16;
  }
}

bool names_step_recipe(const std::string& name) {
  for (const BuiltIn& recipe : kBuiltIns) {
    if (name == recipe.name) return true;
  }
  return name.ends_with(".toml");
}

StepRecipe parse_step_recipe(std::string_view text, const std::string& name) {
  return RecipeReader(name).read(text);
}

StepRecipe read_step_recipe(const std::string& name) {
  for (const BuiltIn& recipe : kBuiltIns) {
    if (name == recipe.name) return parse_step_recipe(recipe.text, name);
  }
  return parse_step_recipe(read_text_file(name, kMaxRecipeBytes), name);
}

}  // namespace tandem
