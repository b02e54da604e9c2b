#include "formats/hf_folder.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "formats/bitsandbytes.h"
#include "formats/compressed_tensors.h"
#include "formats/families.h"
#include "formats/fp8_folder.h"
#include "formats/qweight.h"
#include "formats/shards.h"
#include "formats/tokenizer_file.h"
#include "formats/validate.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxConfigBytes = 1 << 20;
// Qwen2 pads most: 271 rows. A tokenizer that lacks more than this is another model's.
constexpr int64_t kMaxPaddedTokens = 1024;
// max_window_layers where config.json has none.
constexpr int64_t kFirstWindowLayer = 28;

// config.json's members, with errors that name them; null counts as absent.
class Members {
 public:
  Members(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}

  const Json* find(const char* key) const {
    const auto it = json_.find(key);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }
  int64_t integer(const char* key) const {
    const Json* value = find(key);
    if (value == nullptr) fail(ErrorKind::bad_file, "{}: '{}' is missing", where_, key);
    if (!value->is_number_unsigned() || value->get<uint64_t>() > INT32_MAX) {
      wrong(key, "an integer of at least 0");
    }
    return value->get<int64_t>();
  }
  int64_t integer_or(const char* key, int64_t otherwise) const {
    return find(key) == nullptr ? otherwise : integer(key);
  }
  double real(const char* key) const {
    const Json* value = find(key);
    if (value == nullptr) fail(ErrorKind::bad_file, "{}: '{}' is missing", where_, key);
    if (!value->is_number()) wrong(key, "a number");
    return value->get<double>();
  }
  std::string text_or(const char* key, const char* otherwise) const {
    const Json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_string()) wrong(key, "a string");
    return value->get<std::string>();
  }
  bool flag_or(const char* key, bool otherwise) const {
    const Json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) wrong(key, "true or false");
    return value->get<bool>();
  }
  // Refuses a value that would change what the model computes.
  void require(const char* key, const Json& supported) const {
    const Json* value = find(key);
    if (value != nullptr && *value != supported) wrong(key, "only " + dump_json(supported));
  }
  [[noreturn]] void wrong(const char* key, const std::string& expected) const {
    fail(ErrorKind::bad_file, "{}: '{}' is {}, expected {}", where_, key,
         quote(dump_json(*find(key))), expected);
  }

 private:
  const Json& json_;
  std::string where_;
};

Json read_object(const std::filesystem::path& path, uint64_t max_bytes) {
  Json json = parse_json(read_text_file(path, max_bytes), path.string());
  if (!json.is_object()) fail(ErrorKind::bad_file, "{}: not a JSON object", path.string());
  return json;
}

// Both spellings: rope_parameters holds everything, rope_scaling leaves rope_theta beside it.
void read_rope(const Members& config, const std::string& where, ModelConfig* out) {
  const char* key = config.find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  const Json* rope = config.find(key);
  if (config.find("rope_theta") != nullptr) out->rope_theta = config.real("rope_theta");
  if (rope == nullptr) return;
  if (!rope->is_object()) config.wrong(key, "an object");
  const Members members(*rope, where + ": " + key);
  if (members.find("rope_theta") != nullptr) out->rope_theta = members.real("rope_theta");
  const std::string type = members.text_or("rope_type", members.text_or("type", "default").c_str());
  members.require("partial_rotary_factor", 1.0);
  if (type == "default") return;
  if (type == "linear") {
    out->rope_scaling = RopeScaling::linear;
  } else if (type == "dynamic") {
    out->rope_scaling = RopeScaling::dynamic;
    out->rope_original_context = out->max_context;
  } else if (type == "llama3") {
    out->rope_scaling = RopeScaling::llama3;
    out->rope_low_freq_factor = members.real("low_freq_factor");
    out->rope_high_freq_factor = members.real("high_freq_factor");
    out->rope_original_context = members.integer("original_max_position_embeddings");
  } else {
    fail(ErrorKind::bad_file,
         "{}: RoPE scaling {} is not supported by this version (supported: default, linear, "
         "dynamic, llama3)",
         where, quote(type));
  }
  out->rope_factor = members.real("factor");
  // max_position_embeddings is what dynamic scaling starts from; the factor says how far it goes.
  if (out->rope_scaling == RopeScaling::dynamic && out->rope_factor >= 1 && out->rope_factor < 1e6) {
    out->max_context = static_cast<int64_t>(static_cast<double>(out->max_context) * out->rope_factor);
  }
}

// [L]: the layers without a window, by layer_types or else by max_window_layers.
std::vector<bool> read_full_layers(const Members& config, int64_t num_layers) {
  std::vector<bool> full;
  const Json* types = config.find("layer_types");
  if (types == nullptr) {
    const int64_t first = config.integer_or("max_window_layers", kFirstWindowLayer);
    for (int64_t l = 0; l < num_layers; ++l) full.push_back(l < first);
    return full;
  }
  if (!types->is_array()) config.wrong("layer_types", "an array");
  for (const Json& type : *types) {
    if (type != "full_attention" && type != "sliding_attention") {
      config.wrong("layer_types", "only \"full_attention\" and \"sliding_attention\"");
    }
    full.push_back(type == "full_attention");
  }
  if (static_cast<int64_t>(full.size()) != num_layers) {
    config.wrong("layer_types", fmt::format("{} layers", num_layers));
  }
  return full;
}

void read_window(const Members& config, const Json& json, const Family& family, ModelConfig* out) {
  const bool switched_on = family.switched_window && config.flag_or("use_sliding_window", false);
  if (!switched_on) {
    config.require("use_sliding_window", false);
    if (const Json* types = config.find("layer_types")) {
      const auto is_full = [](const Json& type) { return type == "full_attention"; };
      if (!types->is_array() || !std::all_of(types->begin(), types->end(), is_full)) {
        config.wrong("layer_types", "only \"full_attention\"");
      }
    }
  }
  if (!switched_on && !family.reads_window) return;
  out->sliding_window = json.contains("sliding_window") ? config.integer_or("sliding_window", 0)
                                                        : family.window_when_unstated;
  if (!switched_on || out->sliding_window == 0) return;
  out->full_layers = read_full_layers(config, out->num_layers);
  const auto has = [&](bool full) { return std::ranges::count(out->full_layers, full) != 0; };
  if (!has(false)) out->sliding_window = 0;
  if (!has(false) || !has(true)) out->full_layers.clear();
}

ModelConfig read_config(const Json& json, const std::string& where) {
  const Members members(json, where);
  const std::string type = members.text_or("model_type", "");
  const Family* family = find_family(type);
  if (family == nullptr) {
    fail(ErrorKind::bad_file, "{}: model_type {} is not supported by this version (supported: {})",
         where, quote(type), family_names());
  }
  members.require("architectures", Json::array({family->architecture}));
  members.require("hidden_act", "silu");
  if (!family->attention_bias) members.require("attention_bias", false);
  if (!family->mlp_bias) members.require("mlp_bias", false);
  members.require("partial_rotary_factor", 1.0);
  for (const char* key : {"torch_dtype", "dtype"}) {
    const std::string dtype = members.text_or(key, "bfloat16");
    if (dtype != "bfloat16" && dtype != "float16" && dtype != "float32") {
      members.wrong(key, "bfloat16, float16 or float32");
    }
  }
  ModelConfig config;
  config.family = family->name;
  config.o_bias = family->attention_bias && members.flag_or("attention_bias", false);
  config.qkv_bias = family->qkv_bias || config.o_bias;
  config.mlp_bias = family->mlp_bias && members.flag_or("mlp_bias", false);
  config.qk_norm = family->qk_norm;
  config.num_layers = members.integer("num_hidden_layers");
  config.width = members.integer("hidden_size");
  config.ffn_width = members.integer("intermediate_size");
  config.vocab_size = members.integer("vocab_size");
  config.max_context = members.integer("max_position_embeddings");
  config.num_heads = members.integer("num_attention_heads");
  check_range(where, "'num_attention_heads'", config.num_heads, 1, 4096);
  config.num_kv_heads = members.integer_or("num_key_value_heads", config.num_heads);
  if (members.find("head_dim") == nullptr && config.width % config.num_heads != 0) {
    fail(ErrorKind::bad_file,
         "{}: 'hidden_size' {} is not a multiple of 'num_attention_heads' {} and "
         "there is no 'head_dim'",
         where, config.width, config.num_heads);
  }
  config.head_dim = members.integer_or("head_dim", config.width / config.num_heads);
  config.rms_eps = members.real("rms_norm_eps");
  check_range(where, "'num_hidden_layers'", config.num_layers, 1, 4096);
  read_window(members, json, *family, &config);
  read_rope(members, where, &config);
  config.tied_embedding = members.flag_or("tie_word_embeddings", false);
  config.name = members.text_or("_name_or_path", "");
  return config;
}

void add_manifest(const std::filesystem::path& dir, Checkpoint* checkpoint) {
  const auto path = dir / kManifestFile;
  if (!std::filesystem::exists(path)) return;
  const Json manifest = read_object(path, kMaxConfigBytes);
  for (const auto& [key, value] : manifest.items()) {
    if (value.is_structured()) continue;  // for those who read the manifest itself
    checkpoint->metadata.emplace_back(
        key, value.is_string() ? value.get<std::string>() : dump_json(value));
  }
}

bool same_bytes(const Weight& a, const Weight& b) {
  return a.encoding == b.encoding && a.N == b.N && a.K == b.K && a.encoding.is_plain() &&
         std::memcmp(a.data, b.data, a.data_bytes()) == 0;
}

// Old folders keep RoPE's frequencies, which the config gives, and some tied ones the embedding
// twice. A second matrix of another content means that the config is wrong about it: as in
// transformers, the matrix counts.
void drop_copies(Checkpoint* checkpoint) {
  const auto num_dropped = std::erase_if(checkpoint->tensors, [](const NamedTensor& tensor) {
    return tensor.name.ends_with("rotary_emb.inv_freq");
  });
  if (num_dropped != 0) {
    checkpoint->warnings.push_back(fmt::format(
        "{} tensors 'rotary_emb.inv_freq' are ignored: the config gives the frequencies",
        num_dropped));
  }
  if (!checkpoint->config.tied_embedding) return;
  checkpoint->index_tensors();
  const NamedTensor* lm_head = checkpoint->find("lm_head.weight");
  const NamedTensor* embedding = checkpoint->find("model.embed_tokens.weight");
  if (lm_head == nullptr || embedding == nullptr) return;
  if (same_bytes(lm_head->weight, embedding->weight)) {
    checkpoint->warnings.push_back("tensor 'lm_head.weight' is the embedding once more");
    checkpoint->tensors.erase(checkpoint->tensors.begin() + (lm_head - checkpoint->tensors.data()));
  } else {
    checkpoint->warnings.push_back(
        "tie_word_embeddings is true, but 'lm_head.weight' is another matrix and is used");
    checkpoint->config.tied_embedding = false;
  }
}

// Old GPTQ folders have a bias beside every quantized matrix, of zeros where the model has none.
void drop_zero_biases(Checkpoint* checkpoint) {
  std::set<std::string> expected;
  for (const ExpectedTensor& want : expected_tensors(checkpoint->config)) expected.insert(want.name);
  const auto num_dropped = std::erase_if(checkpoint->tensors, [&](const NamedTensor& tensor) {
    if (!tensor.name.ends_with("_proj.bias") || expected.contains(tensor.name)) return false;
    const auto* bytes = tensor.weight.data;
    return std::all_of(bytes, bytes + tensor.weight.data_bytes(), [](std::byte b) { return b == std::byte{0}; });
  });
  if (num_dropped == 0) return;
  checkpoint->warnings.push_back(fmt::format("{} biases of zeros are left out: the config has none", num_dropped));
}

// config.json's quantization_config, or the file in which AutoGPTQ once kept GPTQ's; null: neither.
Json quantization_of(const Json& config, const std::filesystem::path& dir) {
  const auto it = config.find("quantization_config");
  if (it != config.end() && !it->is_null()) return *it;
  const auto path = dir / "quantize_config.json";
  if (!std::filesystem::exists(path)) return nullptr;
  Json json = read_object(path, kMaxConfigBytes);
  if (!json.contains("quant_method")) json["quant_method"] = "gptq";
  return json;
}

// Embeddings are padded to a round number of rows: those beyond the tokenizer's are never produced.
void pad_tokenizer(int64_t vocab_size, TokenizerSpec* spec) {
  const auto size = static_cast<int64_t>(spec->tokens.size());
  for (int64_t id = size; id < std::min(vocab_size, size + kMaxPaddedTokens); ++id) {
    spec->tokens.push_back(fmt::format("[PAD{}]", id));
    spec->types.push_back(TokenType::unused);
  }
  if (!spec->scores.empty()) spec->scores.resize(spec->tokens.size());
  if (!spec->unigram_scores.empty()) spec->unigram_scores.resize(spec->tokens.size());
}

// A quantized folder may bring one scale for all keys of a layer and one for its values.
void drop_kv_scales(const Json& config, SafetensorsFile* file, std::vector<std::string>* warnings) {
  const Json quantization = config.value("quantization_config", Json(nullptr));
  if (!quantization.is_object()) return;
  const auto num_dropped = std::erase_if(file->tensors, [](const SafetensorsEntry& entry) {
    return entry.name.ends_with(".k_scale") || entry.name.ends_with(".v_scale");
  });
  const Json scheme = quantization.value("kv_cache_scheme", Json(nullptr));
  if (num_dropped == 0 && scheme.empty()) return;
  warnings->push_back(fmt::format(
      "the file's scales of the KV cache ({} tensors 'k_scale' and 'v_scale') are not used: a cache "
      "here has a scale for each token and head (--kv)",
      num_dropped));
}

}  // namespace

Checkpoint read_hf_folder(const std::filesystem::path& dir) {
  const std::filesystem::path config_path = dir / "config.json";
  const std::string where = config_path.string();
  const Json json = read_object(config_path, kMaxConfigBytes);

  Checkpoint checkpoint;
  checkpoint.path = dir;
  checkpoint.format = "Hugging Face folder";
  checkpoint.config = read_config(json, where);
  if (checkpoint.config.name.empty()) {
    const auto absolute = std::filesystem::absolute(dir).lexically_normal();
    checkpoint.config.name =
        (absolute.has_filename() ? absolute : absolute.parent_path()).filename().string();
  }
  std::optional<QuantizationConfig> quantization;
  std::optional<BitsandbytesConfig> bitsandbytes;
  std::optional<QweightConfig> qweight;
  std::optional<Fp8Config> fp8;
  if (const Json config = quantization_of(json, dir); !config.is_null()) {
    if (is_bitsandbytes(config)) {
      bitsandbytes = read_bitsandbytes_config(config, where);
      checkpoint.format += ", bitsandbytes";
    } else if (is_qweight(config)) {
      qweight = read_qweight_config(config, where);
      checkpoint.format += ", " + qweight->name();
    } else if (is_fp8_config(config)) {
      fp8 = read_fp8_config(config, where);
      checkpoint.format += ", FP8";
    } else {
      checkpoint.format += ", compressed-tensors";
      quantization = read_quantization_config(config, where);
    }
  }
  FolderWeights weights = open_folder_weights(dir);
  checkpoint.warnings = std::move(weights.warnings);
  drop_kv_scales(json, &weights.tensors, &checkpoint.warnings);
  if (bitsandbytes) {
    checkpoint.tensors = read_bitsandbytes_weights(weights.tensors, *bitsandbytes, weights.where,
                                                   &checkpoint.memory);
  } else if (qweight) {
    checkpoint.tensors = read_qweights(weights.tensors, *qweight, weights.where,
                                       &checkpoint.repacked, &checkpoint.warnings);
    drop_zero_biases(&checkpoint);
  } else if (fp8) {
    checkpoint.tensors =
        read_fp8_weights(weights.tensors, *fp8, weights.where, &checkpoint.memory);
  } else {
    checkpoint.tensors = read_weights(weights.tensors, quantization, weights.where,
                                      &checkpoint.repacked, &checkpoint.memory);
  }
  checkpoint.file_bytes = weights.file_bytes;
  checkpoint.files = std::move(weights.files);
  drop_copies(&checkpoint);
  checkpoint.tokenizer = read_folder_tokenizer(dir);
  pad_tokenizer(checkpoint.config.vocab_size, &checkpoint.tokenizer);
  add_manifest(dir, &checkpoint);
  validate_checkpoint(checkpoint);
  return checkpoint;
}

}  // namespace tandem
