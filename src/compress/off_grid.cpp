#include "compress/off_grid.h"

#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/random.h"

namespace tandem {
namespace {

enum class Site : uint64_t { attn_norm, value, ffn_norm, up };

constexpr std::string_view kLayers = "model.layers.";
constexpr double kLargestFactor = 1.25;

std::vector<double> factors_at(Site site, uint64_t layer, int64_t count, uint64_t seed) {
  // The first number of a generator of its own for each place: tensors come in any order.
  Random random(Random(seed ^ (layer * 4 + static_cast<uint64_t>(site)) << 32).next());
  std::vector<double> factors(static_cast<size_t>(count));
  for (double& f : factors) f = std::exp((2 * random.uniform() - 1) * std::log(kLargestFactor));
  return factors;
}

std::vector<double> inverse(std::vector<double> factors) {
  for (double& f : factors) f = 1 / f;
  return factors;
}

// Each group's channels once for each of its heads.
std::vector<double> for_heads(const std::vector<double>& values, const ModelConfig& config) {
  std::vector<double> out;
  for (int64_t head = 0; head < config.num_heads; ++head) {
    const int64_t group = head / (config.num_heads / config.num_kv_heads);
    const auto begin = values.begin() + group * config.head_dim;
    out.insert(out.end(), begin, begin + config.head_dim);
  }
  return out;
}

}  // namespace

ChannelFactors off_grid_factors(const ModelConfig& config, std::string_view tensor, uint64_t seed) {
  if (!tensor.starts_with(kLayers)) return {};
  tensor.remove_prefix(kLayers.size());
  uint64_t layer = 0;
  const auto parsed = std::from_chars(tensor.data(), tensor.data() + tensor.size(), layer);
  CHECK(parsed.ec == std::errc{}, "tensor {}", quote(tensor));
  const std::string_view part = tensor.substr(static_cast<size_t>(parsed.ptr - tensor.data()) + 1);
  const auto at = [&](Site site, int64_t count) { return factors_at(site, layer, count, seed); };
  const auto attn_norm = [&] { return at(Site::attn_norm, config.width); };
  const auto ffn_norm = [&] { return at(Site::ffn_norm, config.width); };
  const auto value = [&] { return at(Site::value, config.num_kv_heads * config.head_dim); };
  const auto up = [&] { return at(Site::up, config.ffn_width); };

  if (part == "input_layernorm.weight") return {{}, attn_norm()};
  if (part == "self_attn.q_proj.weight" || part == "self_attn.k_proj.weight") {
    return {{}, inverse(attn_norm())};
  }
  if (part == "self_attn.v_proj.weight") return {value(), inverse(attn_norm())};
  if (part == "self_attn.v_proj.bias") return {{}, value()};
  if (part == "self_attn.o_proj.weight") return {{}, for_heads(inverse(value()), config)};
  if (part == "post_attention_layernorm.weight") return {{}, ffn_norm()};
  if (part == "mlp.gate_proj.weight") return {{}, inverse(ffn_norm())};
  if (part == "mlp.up_proj.weight") return {up(), inverse(ffn_norm())};
  if (part == "mlp.up_proj.bias") return {{}, up()};
  if (part == "mlp.down_proj.weight") return {{}, inverse(up())};
  return {};
}

}  // namespace tandem
