#include "formats/hf_folder.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "formats/compressed_tensors.h"
#include "formats/safetensors.h"
#include "formats/tokenizer_json.h"
#include "formats/validate.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxConfigBytes = 1 << 20;

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

double read_rope_theta(const Members& config, const std::string& where) {
  const char* key = config.find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  const Json* rope = config.find(key);
  if (rope != nullptr) {
    if (!rope->is_object()) config.wrong(key, "an object");
    const Members members(*rope, where + ": " + key);
    members.require("rope_type", "default");
    members.require("type", "default");
    if (members.find("rope_theta") != nullptr) return members.real("rope_theta");
  }
  return config.find("rope_theta") != nullptr ? config.real("rope_theta") : 10000.0;
}

ModelConfig read_config(const Json& json, const std::string& where) {
  const Members members(json, where);
  const std::string type = members.text_or("model_type", "");
  if (type != "llama") {
    fail(ErrorKind::bad_file,
         "{}: model_type {} is not supported by this version (supported: llama)", where,
         quote(type));
  }
  members.require("architectures", Json::array({"LlamaForCausalLM"}));
  members.require("hidden_act", "silu");
  members.require("attention_bias", false);
  members.require("mlp_bias", false);
  for (const char* key : {"torch_dtype", "dtype"}) {
    const std::string dtype = members.text_or(key, "bfloat16");
    if (dtype != "bfloat16" && dtype != "float16" && dtype != "float32") {
      members.wrong(key, "bfloat16, float16 or float32");
    }
  }
  ModelConfig config;
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
  config.rope_theta = read_rope_theta(members, where);
  config.tied_embedding = members.flag_or("tie_word_embeddings", false);
  config.name = members.text_or("_name_or_path", "");
  return config;
}

std::filesystem::path weights_path(const std::filesystem::path& dir) {
  const auto path = dir / "model.safetensors";
  if (std::filesystem::exists(path)) return path;
  if (std::filesystem::exists(dir / "model.safetensors.index.json")) {
    fail(ErrorKind::bad_file,
         "{}: weights in several files (model.safetensors.index.json) are not "
         "supported by this version",
         dir.string());
  }
  if (std::filesystem::exists(dir / "pytorch_model.bin")) {
    fail(ErrorKind::bad_file,
         "{}: pytorch_model.bin is a pickle, which can run code and is never read: "
         "save the model again with save_pretrained(..., safe_serialization=True)",
         dir.string());
  }
  fail(ErrorKind::bad_file, "{}: model.safetensors is missing", dir.string());
}

void add_manifest(const std::filesystem::path& dir, Checkpoint* checkpoint) {
  const auto path = dir / kManifestFile;
  if (!std::filesystem::exists(path)) return;
  const Json manifest = read_object(path, kMaxConfigBytes);
  for (const auto& [key, value] : manifest.items()) {
    checkpoint->metadata.emplace_back(
        key, value.is_string() ? value.get<std::string>() : dump_json(value));
  }
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
  if (json.contains("quantization_config") && !json["quantization_config"].is_null()) {
    quantization = read_quantization_config(json["quantization_config"], where);
  }
  const auto mapped = std::make_shared<MappedFile>(weights_path(dir));
  const std::string weights = mapped->path().string();
  const SafetensorsFile file = parse_safetensors(mapped->bytes(), weights);
  check_fits(weights, mapped->bytes().size());
  checkpoint.tensors = read_weights(file, quantization, weights);
  checkpoint.file_bytes = mapped->bytes().size();
  checkpoint.files.push_back(mapped);
  checkpoint.tokenizer = read_tokenizer_json(dir);
  add_manifest(dir, &checkpoint);
  validate_checkpoint(checkpoint);
  return checkpoint;
}

}  // namespace tandem
