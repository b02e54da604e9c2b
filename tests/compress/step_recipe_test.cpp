// Recipe files: what they say, and what is refused where.
#include "compress/step_recipe.h"

#include <gtest/gtest.h>

#include "base/error_message.h"
#include "compress/methods.h"

namespace tandem {
namespace {

std::string refusal(std::string_view text) {
  return message_of(ErrorKind::usage, [&] { parse_step_recipe(text, "r.toml"); });
}

TEST(StepRecipe, StepsOverridesAndFormat) {
  const StepRecipe recipe = parse_step_recipe(R"(format = "gptq"
[[step]]
method = "gptq"
bits = 3
damping = 0.05
only = "*.mlp.*"

[[step.override]]
match = "*.0.*"
skip = true

[[step]]
method = "rtn"
symmetric = false
)",
                                              "r.toml");
  EXPECT_EQ(recipe.format, "gptq");
  ASSERT_EQ(recipe.steps.size(), 2u);
  const StepSpec& step = recipe.steps[0];
  EXPECT_EQ(step.method, "gptq");
  EXPECT_EQ(step.only, "*.mlp.*");
  EXPECT_EQ(step.scale_type, ScaleType::f16);
  EXPECT_EQ(std::get<int64_t>(step.options.values.at("bits").value), 3);
  EXPECT_EQ(step.options.values.at("damping").where, "r.toml:5");
  ASSERT_EQ(step.overrides.size(), 1u);
  EXPECT_TRUE(step.overrides[0].skip);
  EXPECT_EQ(std::get<bool>(recipe.steps[1].options.values.at("symmetric").value), false);
}

TEST(StepRecipe, BuiltInsAreRecipes) {
  ModelConfig config;
  config.num_layers = 1;
  for (const std::string& name : built_in_recipes()) {
    EXPECT_TRUE(names_step_recipe(name));
    const StepRecipe recipe = read_step_recipe(name);
    for (const StepSpec& spec : recipe.steps) EXPECT_NE(make_step(spec, config), nullptr);
  }
  EXPECT_FALSE(names_step_recipe("int8"));
}

TEST(StepRecipe, Refusals) {
  EXPECT_EQ(refusal(""), "r.toml: has no steps, expected at least one [[step]]");
  EXPECT_EQ(refusal("[[steps]]\nmethod = \"rtn\"\n"),
            "r.toml:1: unknown key 'steps' (nearest: 'step'); expected format, activations, mixed, step");
  EXPECT_EQ(refusal("format = \"gguf\"\n"),
            "r.toml:1: format 'gguf', expected one of compressed-tensors, sparse-24-bitmask, "
            "gptq, gptq_v2, awq");
  EXPECT_EQ(refusal("[step]\nmethod = \"rtn\"\n"),
            "r.toml:1: step is no table, expected [[step]]");
  EXPECT_EQ(refusal("[[step]]\nbits = 4\n"),
            "r.toml:1: a step without a method, expected method = \"NAME\"");
  EXPECT_EQ(refusal("[[step]]\nmethod = \"rtn\"\n[[step.override]]\nbits = 4\n"),
            "r.toml:3: an override without a match, expected match = \"GLOB\"");
  EXPECT_EQ(refusal("[[step]]\nmethod = \"rtn\"\nbits = [4]\n"),
            "r.toml:3: 'bits': expected true or false, a number or a text");
  EXPECT_TRUE(refusal("[[step]]\nmethod = \"rtn\"\nbits = \n").starts_with("r.toml:3: "));
}

TEST(StepRecipe, UnknownMethodsAndOptions) {
  ModelConfig config;
  config.num_layers = 1;
  const auto make = [&](std::string_view text) {
    return message_of(ErrorKind::usage, [&] {
      make_step(parse_step_recipe(text, "r.toml").steps[0], config);
    });
  };
  EXPECT_TRUE(make("[[step]]\nmethod = \"gtpq\"\n")
                  .starts_with("r.toml:1: unknown method 'gtpq' (nearest: 'gptq'), expected one of"));
  EXPECT_TRUE(make("[[step]]\nmethod = \"gptq\"\ngruop = 32\n")
                  .starts_with("r.toml:3: gptq: unknown option 'gruop' (nearest: 'group'); it has "));
}

TEST(StepRecipe, MixedAndActivationsStandBesideTheSteps) {
  const StepRecipe recipe = parse_step_recipe(
      "activations = \"static\"\n[mixed]\nbits = \"4 8\"\nmegabytes = 50\n[[step]]\nmethod = \"rtn\"\n",
      "r.toml");
  EXPECT_EQ(recipe.activations, "static");
  ASSERT_TRUE(recipe.mixed.has_value());
  EXPECT_EQ(std::get<std::string>(recipe.mixed->values.at("bits").value), "4 8");
  EXPECT_EQ(std::get<int64_t>(recipe.mixed->values.at("megabytes").value), 50);
  EXPECT_FALSE(read_step_recipe("awq").mixed.has_value());
  EXPECT_EQ(read_step_recipe("smoothquant").activations, "dynamic");
}

}  // namespace
}  // namespace tandem
