// Options by matrix, globs, and what is refused.
#include "compress/step_options.h"

#include <gtest/gtest.h>

#include "base/error_message.h"

namespace tandem {
namespace {

struct Toy {
  int64_t bits = 0;
  double damping = 0;
};

Toy read_toy(OptionReader& options) {
  return {options.integer("bits", 4, 2, 8), options.number("damping", 0.01, 0, 1)};
}

OptionTable table(std::map<std::string, OptionValue, std::less<>> values, int line) {
  const std::string where = "r.toml:" + std::to_string(line);
  for (auto& [key, option] : values) option.where = where;
  return {values, where};
}

ModelConfig two_layers() {
  ModelConfig config;
  config.num_layers = 2;
  return config;
}

TEST(Glob, StarsAndQuestionMarks) {
  EXPECT_TRUE(glob_matches("*", "anything"));
  EXPECT_TRUE(glob_matches("model.layers.1.*", "model.layers.1.mlp.up_proj"));
  EXPECT_FALSE(glob_matches("model.layers.1.*", "model.layers.11.mlp.up_proj"));
  EXPECT_TRUE(glob_matches("*.?_proj", "model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(glob_matches("*.?_proj", "model.layers.0.mlp.up_proj"));
  EXPECT_TRUE(glob_matches("*a*b*c", "xaxbxaxbxc"));
  EXPECT_FALSE(glob_matches("*a*b*c", "xaxbxaxbxcx"));
  EXPECT_FALSE(glob_matches("", "x"));
}

TEST(StepOptions, OverridesApplyInOrder) {
  StepSpec spec{"toy", "*", table({{"bits", {int64_t{3}, ""}}}, 2), {}};
  spec.overrides.push_back({"*.layers.1.*", false, table({{"bits", {int64_t{8}, ""}}}, 5)});
  spec.overrides.push_back({"*.1.*.down_proj", false, table({{"damping", {int64_t{1}, ""}}}, 7)});
  spec.overrides.push_back({"*.0.*.q_proj", true, table({}, 9)});
  const auto all = read_options<Toy>(spec, two_layers(), read_toy);
  EXPECT_FALSE(all.at(0, Linear::q).has_value());
  EXPECT_EQ(all.at(0, Linear::k)->bits, 3);
  EXPECT_EQ(all.at(1, Linear::k)->bits, 8);
  EXPECT_EQ(all.at(1, Linear::k)->damping, 0.01);
  EXPECT_EQ(all.at(1, Linear::down)->bits, 8);
  EXPECT_EQ(all.at(1, Linear::down)->damping, 1);
  spec.only = "*.mlp.*";
  EXPECT_FALSE(read_options<Toy>(spec, two_layers(), read_toy).at(0, Linear::k).has_value());
}

std::string refusal(const StepSpec& spec) {
  return message_of(ErrorKind::usage, [&] { read_options<Toy>(spec, two_layers(), read_toy); });
}

TEST(StepOptions, Refusals) {
  EXPECT_EQ(refusal({"toy", "*", table({{"bit", {int64_t{3}, ""}}}, 4), {}}),
            "r.toml:4: toy: unknown option 'bit' (nearest: 'bits'); it has bits, damping");
  EXPECT_EQ(refusal({"toy", "*", table({{"bits", {int64_t{9}, ""}}}, 4), {}}),
            "r.toml:4: toy: option 'bits' is 9, expected a whole number from 2 to 8");
  EXPECT_EQ(refusal({"toy", "*", table({{"bits", {std::string("4"), ""}}}, 4), {}}),
            "r.toml:4: toy: option 'bits' is a text, expected a whole number from 2 to 8");
  StepSpec spec{"toy", "*", table({}, 1), {{"*.q_porj", true, table({}, 6)}}};
  EXPECT_EQ(refusal(spec),
            "r.toml:6: '*.q_porj' matches none of the model's matrices, which are named as "
            "model.layers.0.self_attn.q_proj");
}

}  // namespace
}  // namespace tandem
