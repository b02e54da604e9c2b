// A parsed GGUF file of a known architecture -> Checkpoint: GGUF's keys and names become a ModelConfig
// and Hugging Face's tensor names.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "base/error.h"
#include "formats/families.h"
#include "formats/gguf_split.h"
#include "formats/gguf_tokenizer.h"
#include "formats/validate.h"

namespace tandem {
namespace {

// Keys that define the model; any other under the architecture's prefix draws a warning.
constexpr std::string_view kKnownKeys[] = {"block_count",
                                           "context_length",
                                           "embedding_length",
                                           "feed_forward_length",
                                           "vocab_size",
                                           "attention.head_count",
                                           "attention.head_count_kv",
                                           "attention.key_length",
                                           "attention.value_length",
                                           "attention.layer_norm_rms_epsilon",
                                           "rope.freq_base",
                                           "rope.dimension_count",
                                           "attention.sliding_window",
                                           "rope.scaling.type",
                                           "rope.scaling.factor",
                                           "rope.scale_linear",  // its older name
                                           "rope.scaling.original_context_length"};

// Keys whose every value but the one given changes what the model computes.
constexpr std::pair<std::string_view, double> kNeutralKeys[] = {
    {"expert_count", 0},        {"logit_scale", 1},
    {"attention.clamp_kqv", 0}, {"attention.max_alibi_bias", 0},
    {"attention.scale", 0},     {"rope.scaling.attn_factor", 1}};

constexpr std::pair<std::string_view, std::string_view> kLayerNames[] = {
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_q.bias", "self_attn.q_proj.bias"},
    {"attn_k.bias", "self_attn.k_proj.bias"},
    {"attn_v.bias", "self_attn.v_proj.bias"},
    {"attn_q_norm.weight", "self_attn.q_norm.weight"},
    {"attn_k_norm.weight", "self_attn.k_norm.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"attn_output.bias", "self_attn.o_proj.bias"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
    {"ffn_gate.bias", "mlp.gate_proj.bias"},
    {"ffn_up.bias", "mlp.up_proj.bias"},
    {"ffn_down.bias", "mlp.down_proj.bias"}};

// Where a family's matrices are fused.
constexpr std::pair<std::string_view, std::string_view> kFusedLayerNames[] = {
    {"attn_qkv.weight", "self_attn.qkv_proj.weight"},
    {"ffn_up.weight", "mlp.gate_up_proj.weight"}};

constexpr std::pair<std::string_view, std::string_view> kModelNames[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"}};

// A value for people; text is quoted, arrays are counted.
std::string printable(const GgufValue& value) {
  if (value.type == GgufType::string) return quote(value.text());
  if (value.type == GgufType::array) {
    return fmt::format("[{} x {}]", value.count, gguf_type_name(value.element));
  }
  if (value.type == GgufType::boolean) return value.number() != 0 ? "true" : "false";
  if (const auto n = value.unsigned_integer()) return fmt::to_string(*n);
  // Shortest form that reads back as the stored float: 1e-05 rather than 9.99999974e-06.
  if (value.type == GgufType::f32) return fmt::to_string(static_cast<float>(value.number()));
  return fmt::to_string(value.number());
}

// The architecture's keys, with errors that name them.
class Keys {
 public:
  Keys(const GgufFile& file, const std::string& prefix, const std::string& name)
      : file_(file), prefix_(prefix), name_(name) {}

  const std::string& prefix() const { return prefix_; }

  const GgufValue* find(std::string_view key) const {
    return file_.find(prefix_ + std::string(key));
  }
  int64_t integer(std::string_view key) const {
    const GgufValue* value = find(key);
    if (value == nullptr)
      fail(ErrorKind::bad_file, "{}: key '{}{}' is missing", name_, prefix_, key);
    const auto n = value->unsigned_integer();
    if (!n || *n > INT32_MAX) {
      fail(ErrorKind::bad_file, "{}: key '{}{}' is {}, expected an integer from 0 to {}", name_,
           prefix_, key, n ? fmt::to_string(*n) : printable(*value), INT32_MAX);
    }
    return static_cast<int64_t>(*n);
  }
  int64_t integer_or(std::string_view key, int64_t otherwise) const {
    return find(key) == nullptr ? otherwise : integer(key);
  }
  double real_or(std::string_view key, double otherwise) const {
    const GgufValue* value = find(key);
    if (value == nullptr) return otherwise;
    if (value->type != GgufType::f32 && value->type != GgufType::f64) {
      fail(ErrorKind::bad_file, "{}: key '{}{}' is {}, expected an f32", name_, prefix_, key,
           printable(*value));
    }
    return value->number();
  }

 private:
  const GgufFile& file_;
  const std::string prefix_;  // "llama."
  const std::string& name_;
};

const Family& read_architecture(const GgufFile& file, const std::string& name) {
  const GgufValue* architecture = file.find("general.architecture");
  if (architecture == nullptr) {
    fail(ErrorKind::bad_file, "{}: key 'general.architecture' is missing", name);
  }
  if (architecture->type != GgufType::string) {
    fail(ErrorKind::bad_file, "{}: key 'general.architecture' is of type {}, expected a string",
         name, gguf_type_name(architecture->type));
  }
  const Family* family = find_gguf_family(architecture->text());
  if (family == nullptr) {
    fail(ErrorKind::bad_file, "{}: architecture {} is not supported by this version (supported: {})",
         name, quote(architecture->text()), gguf_family_names());
  }
  return *family;
}

// Refuses what would change the result if it were ignored; gives a warning for each key not known.
std::vector<std::string> check_keys(const GgufFile& file, const Keys& keys,
                                    const std::string& name) {
  for (const auto& [key, neutral] : kNeutralKeys) {
    const GgufValue* value = keys.find(key);
    const bool is_number =
        value != nullptr && value->type != GgufType::array && value->type != GgufType::string;
    if (value != nullptr && (!is_number || value->number() != neutral)) {
      fail(ErrorKind::bad_file, "{}: key '{}{}' is {}; only {} is supported by this version", name,
           keys.prefix(), key, printable(*value), neutral);
    }
  }
  std::vector<std::string> warnings;
  for (const auto& [key, value] : file.metadata) {
    if (!key.starts_with(keys.prefix())) continue;
    const std::string_view rest = key.substr(keys.prefix().size());
    const auto is = [&](std::string_view known) { return known == rest; };
    const auto is_neutral = [&](const auto& entry) { return entry.first == rest; };
    if (std::none_of(std::begin(kKnownKeys), std::end(kKnownKeys), is) &&
        std::none_of(std::begin(kNeutralKeys), std::end(kNeutralKeys), is_neutral)) {
      warnings.push_back(
          fmt::format("metadata key {} is not known to this version and is ignored", quote(key)));
    }
  }
  return warnings;
}

void read_rope_scaling(const GgufFile& file, const Keys& keys, const std::string& name,
                       ModelConfig* config) {
  const GgufValue* type = keys.find("rope.scaling.type");
  const bool is_text = type != nullptr && type->type == GgufType::string;
  const bool is_linear = type == nullptr || (is_text && type->text() == "linear");
  if (!is_linear && !(is_text && type->text() == "none")) {
    fail(ErrorKind::bad_file,
         "{}: RoPE scaling {} is not supported by this version (supported: none, linear)", name,
         printable(*type));
  }
  // As llama.cpp has it: linear unless another type is named, and a factor of 0 is 1.
  const double factor = keys.real_or("rope.scaling.factor", keys.real_or("rope.scale_linear", 1.0));
  if (is_linear && factor != 0 && factor != 1) {
    config->rope_scaling = RopeScaling::linear;
    config->rope_factor = factor;
  }
  for (const GgufTensor& tensor : file.tensors) {
    if (tensor.name != "rope_freqs.weight") continue;
    if (tensor.encoding != kF32 || tensor.num_dims != 1 ||
        config->rope_scaling != RopeScaling::none) {
      fail(ErrorKind::bad_file,
           "{}: tensor 'rope_freqs.weight': expected a vector of F32 and no other RoPE scaling",
           name);
    }
    config->rope_scaling = RopeScaling::divisors;
    config->rope_divisors.resize(static_cast<size_t>(tensor.dims[0]));
    std::memcpy(config->rope_divisors.data(), tensor.bytes.data(), tensor.bytes.size());
  }
}

ModelConfig read_config(const GgufFile& file, const Keys& keys, const Family& family,
                        const std::string& name) {
  ModelConfig config;
  config.family = family.name;
  config.qkv_bias = family.qkv_bias;
  config.qk_norm = family.qk_norm;
  config.sliding_window = keys.integer_or("attention.sliding_window", 0);
  const GgufValue* title = file.find("general.name");
  if (title != nullptr && title->type == GgufType::string) config.name = title->text();
  config.num_layers = keys.integer("block_count");
  config.width = keys.integer("embedding_length");
  config.ffn_width = keys.integer("feed_forward_length");
  config.max_context = keys.integer("context_length");
  config.num_heads = keys.integer("attention.head_count");
  check_range(name, "key '" + keys.prefix() + "attention.head_count'", config.num_heads, 1, 4096);
  config.num_kv_heads = keys.integer_or("attention.head_count_kv", config.num_heads);
  if (keys.find("attention.key_length") != nullptr) {
    config.head_dim = keys.integer("attention.key_length");
  } else if (config.width % config.num_heads == 0) {
    config.head_dim = config.width / config.num_heads;
  } else {
    fail(ErrorKind::bad_file,
         "{}: embedding_length {} is not a multiple of head_count {} and there is "
         "no attention.key_length",
         name, config.width, config.num_heads);
  }
  for (const auto* key : {"attention.value_length", "rope.dimension_count"}) {
    const int64_t value = keys.integer_or(key, config.head_dim);
    if (value != config.head_dim) {
      fail(ErrorKind::bad_file,
           "{}: key '{}{}' is {}; only the head dimension, {}, is supported by "
           "this version",
           name, keys.prefix(), key, value, config.head_dim);
    }
  }
  config.rope_theta = keys.real_or("rope.freq_base", 10000.0);
  if (keys.find("attention.layer_norm_rms_epsilon") == nullptr) {
    fail(ErrorKind::bad_file, "{}: key '{}attention.layer_norm_rms_epsilon' is missing", name,
         keys.prefix());
  }
  keys.real_or("attention.layer_norm_rms_epsilon", 0);  // refuses what is no float
  // The file's float stands for a decimal number: 1e-5, not 9.99999974e-6.
  const std::string epsilon = printable(*keys.find("attention.layer_norm_rms_epsilon"));
  config.rms_eps = std::strtod(epsilon.c_str(), nullptr);
  read_rope_scaling(file, keys, name, &config);
  return config;
}

// Hugging Face's name, or empty when the tensor is not part of the model.
std::string tensor_name(std::string_view name, const Family& family) {
  for (const auto& [from, to] : kModelNames) {
    if (name == from) return std::string(to);
  }
  if (name.substr(0, 4) != "blk.") return "";
  const size_t dot = name.find('.', 4);
  if (dot == std::string_view::npos || dot == 4) return "";
  const std::string_view layer = name.substr(4, dot - 4);
  const bool digits = layer.find_first_not_of("0123456789") == std::string_view::npos;
  if (!digits || (layer.size() > 1 && layer[0] == '0')) return "";
  const auto search = [&](const auto& names) -> std::string {
    for (const auto& [from, to] : names) {
      if (name.substr(dot + 1) == from) return fmt::format("model.layers.{}.{}", layer, to);
    }
    return "";
  };
  const std::string fused = family.fused ? search(kFusedLayerNames) : "";
  return fused.empty() ? search(kLayerNames) : fused;
}

// A bias in the order of interleaved RoPE, as a vector of the checkpoint's own in ours.
Weight half_split(const Weight& bias, Checkpoint* checkpoint) {
  const int64_t head = checkpoint->config.head_dim;
  const bool whole_heads = head > 0 && head % 2 == 0 && bias.N == 1 && bias.K % head == 0;
  if (!whole_heads || !bias.encoding.is_plain()) return bias;  // refused later
  std::vector<float> stored(static_cast<size_t>(bias.K)), values(stored.size());
  decode_row(bias, 0, stored.data());
  Weight rows;
  rows.interleaved_head = head;
  for (int64_t n = 0; n < bias.K; ++n) {
    values[static_cast<size_t>(n)] = stored[static_cast<size_t>(rows.stored_row(n))];
  }
  checkpoint->reordered.push_back(std::make_shared<const std::vector<float>>(std::move(values)));
  Weight out = bias;
  out.encoding = kF32;
  out.data = reinterpret_cast<const std::byte*>(checkpoint->reordered.back()->data());
  return out;
}

void add_tensor(const GgufTensor& tensor, const Family& family, const std::string& name,
                Checkpoint* checkpoint) {
  if (tensor.name == "rope_freqs.weight") return;  // the config holds it
  if (tensor.name.starts_with("rope_factors_")) {
    fail(ErrorKind::bad_file,
         "{}: tensor {}: RoPE scaling 'longrope' is not supported by this version", name,
         quote(tensor.name));
  }
  const std::string to = tensor_name(tensor.name, family);
  if (to.empty()) {
    fail(ErrorKind::bad_file, "{}: tensor {} is not part of a {} model as this version knows it",
         name, quote(tensor.name), family.name);
  }
  if (tensor.dims[2] != 1 || tensor.dims[3] != 1) {
    fail(ErrorKind::bad_file, "{}: tensor {} has {} dimensions, expected a vector or a matrix",
         name, quote(tensor.name), tensor.num_dims);
  }
  Weight weight;
  weight.encoding = tensor.encoding;
  weight.N = tensor.dims[1];
  weight.K = tensor.dims[0];
  weight.data = tensor.bytes.data();
  if (family.gguf_interleaved &&
      (to.ends_with("q_proj.weight") || to.ends_with("k_proj.weight"))) {
    weight.interleaved_head = checkpoint->config.head_dim;
  }
  if (family.gguf_interleaved && (to.ends_with("q_proj.bias") || to.ends_with("k_proj.bias"))) {
    weight = half_split(weight, checkpoint);
  }
  checkpoint->tensors.push_back({to, weight});
}

std::vector<std::pair<std::string, std::string>> printable_metadata(const GgufFile& file) {
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& [key, value] : file.metadata) {
    const bool is_text = value.type == GgufType::string;
    out.emplace_back(key, is_text ? std::string(value.text()) : printable(value));
  }
  return out;
}

}  // namespace

std::string gguf_tensor_name(std::string_view name, const Family& family) {
  for (const auto& [to, from] : kModelNames) {
    if (name == from) return std::string(to);
  }
  constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers)) return "";
  const size_t dot = name.find('.', kLayers.size());
  if (dot == std::string_view::npos) return "";
  const std::string_view layer = name.substr(kLayers.size(), dot - kLayers.size());
  const auto search = [&](const auto& names) -> std::string {
    for (const auto& [to, from] : names) {
      if (name.substr(dot + 1) == from) return fmt::format("blk.{}.{}", layer, to);
    }
    return "";
  };
  const std::string fused = family.fused ? search(kFusedLayerNames) : "";
  return fused.empty() ? search(kLayerNames) : fused;
}

Checkpoint read_gguf(const std::filesystem::path& path) {
  const std::string name = path.string();
  GgufModel model = open_gguf(path);
  const GgufFile& file = model.gguf;
  const Family& family = read_architecture(file, name);

  Checkpoint checkpoint;
  checkpoint.path = path;
  checkpoint.format = fmt::format("GGUF v{}", file.version);
  if (model.files.size() > 1) checkpoint.format += fmt::format(" in {} parts", model.files.size());
  checkpoint.file_bytes = model.file_bytes;
  checkpoint.files = std::move(model.files);
  const Keys keys(file, std::string(family.gguf) + ".", name);
  checkpoint.warnings = check_keys(file, keys, name);
  checkpoint.config = read_config(file, keys, family, name);
  checkpoint.tokenizer = read_gguf_tokenizer(file, name);
  checkpoint.config.tied_embedding = true;
  for (const GgufTensor& tensor : file.tensors) {
    add_tensor(tensor, family, name, &checkpoint);
    if (tensor.name == "output.weight") checkpoint.config.tied_embedding = false;
    if (tensor.name == "token_embd.weight") checkpoint.config.vocab_size = tensor.dims[1];
    if (tensor.name == "blk.0.attn_q.bias") checkpoint.config.qkv_bias = true;
    if (tensor.name == "blk.0.attn_output.bias") checkpoint.config.o_bias = true;
    if (tensor.name == "blk.0.ffn_down.bias") checkpoint.config.mlp_bias = true;
  }
  checkpoint.config.vocab_size = keys.integer_or("vocab_size", checkpoint.config.vocab_size);
  checkpoint.metadata = printable_metadata(file);
  validate_checkpoint(checkpoint);
  return checkpoint;
}

}  // namespace tandem
