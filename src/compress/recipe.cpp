#include "compress/recipe.h"

#include "base/error.h"
#include "base/json.h"

namespace tandem {
namespace {

constexpr int64_t kDefaultGroup = 64;

}  // namespace

Recipe recipe_from_name(const std::string& name, int64_t group) {
  if (name == "int4") {
    if (group == 0) group = kDefaultGroup;
    // A kernel reads a group as whole blocks of activations, which hold 32 channels.
    if (group < kActBlock || group % kActBlock != 0) {
      fail(ErrorKind::usage, "recipe int4: group {}, expected a multiple of {}", group, kActBlock);
    }
    return {name, int4_group(group, ScaleType::bf16), group};
  }
  if (name != "bf16" && name != "int8") {
    fail(ErrorKind::usage, "recipe {}: unknown, expected one of bf16, int8, int4", quote(name));
  }
  if (group != 0) {
    fail(ErrorKind::usage, "recipe {}: has no groups, found --group {}", name, group);
  }
  return {name, name == "bf16" ? kBF16 : int8_channel(ScaleType::bf16), 0};
}

std::string quantization_config_json(const Recipe& recipe) {
  if (!recipe.quantizes()) return {};
  const bool is_int8 = recipe.encoding.packing == Packing::int8_channel;
  Json weights = {
      {"num_bits", recipe.encoding.bits()},        {"type", "int"},         {"symmetric", true},
      {"strategy", is_int8 ? "channel" : "group"}, {"group_size", nullptr}, {"dynamic", false}};
  if (!is_int8) weights["group_size"] = recipe.group;
  Json activations = nullptr;
  if (is_int8) {
    activations = {{"num_bits", 8},       {"type", "int"},         {"symmetric", true},
                   {"strategy", "token"}, {"group_size", nullptr}, {"dynamic", true}};
  }
  const Json scheme = {{"targets", Json::array({"Linear"})},
                       {"weights", weights},
                       {"input_activations", activations},
                       {"output_activations", nullptr}};
  const Json config = {{"quant_method", "compressed-tensors"},
                       {"format", is_int8 ? "int-quantized" : "pack-quantized"},
                       {"quantization_status", "compressed"},
                       {"config_groups", {{"group_0", scheme}}},
                       {"ignore", Json::array({"lm_head"})},
                       {"kv_cache_scheme", nullptr},
                       {"global_compression_ratio", nullptr}};
  return dump_json(config, 2);
}

}  // namespace tandem
