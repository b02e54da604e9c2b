#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "base/json.h"
#include "formats/checkpoint.h"
#include "formats/families.h"
#include "formats/hf_folder.h"
#include "formats/rope_scaling.h"
#include "formats/safetensors.h"
#include "formats/shards.h"
#include "formats/tokenizer_json.h"

namespace tandem {
namespace {

Json id_or_null(int32_t id) { return id < 0 ? Json(nullptr) : Json(id); }

// rope_parameters for newer transformers; older ones read the same object as rope_scaling.
Json rope_json(const ModelConfig& config) {
  if (config.rope_scaling == RopeScaling::divisors) {
    const auto llama3 = divisors_as_llama3(config);
    if (llama3) return rope_json(*llama3);
    fail(ErrorKind::usage,
         "{}: its RoPE is scaled by one divisor a frequency (rope_freqs.weight), and these are no "
         "llama3 scaling that a Hugging Face folder could name: start from the original folder",
         config.name.empty() ? config.family : config.name);
  }
  Json rope = {{"rope_type", rope_scaling_name(config.rope_scaling)},
               {"rope_theta", config.rope_theta}};
  if (config.rope_scaling == RopeScaling::none) return rope;
  rope["factor"] = config.rope_factor;
  if (config.rope_scaling == RopeScaling::llama3) {
    rope["low_freq_factor"] = config.rope_low_freq_factor;
    rope["high_freq_factor"] = config.rope_high_freq_factor;
    rope["original_max_position_embeddings"] = config.rope_original_context;
  }
  return rope;
}

void add_window(const ModelConfig& config, const Family& family, Json* json) {
  const bool windowed = config.sliding_window != 0;
  if (family.reads_window || family.switched_window) {
    (*json)["sliding_window"] = windowed ? Json(config.sliding_window) : Json(nullptr);
  }
  if (!family.switched_window) return;
  (*json)["use_sliding_window"] = windowed;
  Json types = Json::array();
  int64_t first = config.num_layers;  // with a window: all that older transformers can be told
  for (int64_t l = config.num_layers - 1; l >= 0; --l) {
    if (config.window(l) != 0) first = l;
  }
  for (int64_t l = 0; l < config.num_layers; ++l) {
    types.push_back(config.window(l) == 0 ? "full_attention" : "sliding_attention");
  }
  (*json)["max_window_layers"] = first;
  (*json)["layer_types"] = types;
}

std::string config_json(const ModelConfig& config, const TokenizerSpec& tokenizer,
                        const std::string& quantization_config_json, const char* dtype) {
  const Family& family = written_family(config);
  const Json rope = rope_json(config);
  const bool scaled = rope["rope_type"] != "default";
  const bool dynamic = config.rope_scaling == RopeScaling::dynamic;
  Json json = {
      {"architectures", {family.architecture}},
      {"model_type", family.name},
      {"hidden_size", config.width},
      {"intermediate_size", config.ffn_width},
      {"num_hidden_layers", config.num_layers},
      {"num_attention_heads", config.num_heads},
      {"num_key_value_heads", config.num_kv_heads},
      {"head_dim", config.head_dim},
      {"hidden_act", "silu"},
      {"rms_norm_eps", config.rms_eps},
      {"rope_theta", config.rope_theta},
      {"rope_scaling", scaled ? rope : Json(nullptr)},
      {"rope_parameters", rope},
      {"max_position_embeddings", dynamic ? config.rope_original_context : config.max_context},
      {"vocab_size", config.vocab_size},
      {"tie_word_embeddings", config.tied_embedding},
      {"attention_bias", config.o_bias},
      {"attention_dropout", 0.0},
      {"mlp_bias", config.mlp_bias},
      {"bos_token_id", id_or_null(tokenizer.bos_id)},
      {"eos_token_id", id_or_null(tokenizer.eos_id)},
      {"pad_token_id", id_or_null(tokenizer.pad_id)},
      {"initializer_range", 0.02},
      {"pretraining_tp", 1},
      {"use_cache", true},
      {"torch_dtype", dtype},
      {"dtype", dtype}};
  add_window(config, family, &json);
  if (!config.name.empty()) json["_name_or_path"] = config.name;
  if (!quantization_config_json.empty()) {
    json["quantization_config"] = parse_json(quantization_config_json, "quantization_config");
  }
  return dump_json(json, 2) + "\n";
}

std::string generation_config_json(const TokenizerSpec& tokenizer) {
  Json json = {{"_from_model_config", true}};
  if (tokenizer.bos_id >= 0) json["bos_token_id"] = tokenizer.bos_id;
  if (tokenizer.eos_id >= 0) json["eos_token_id"] = tokenizer.eos_id;
  if (tokenizer.pad_id >= 0) json["pad_token_id"] = tokenizer.pad_id;
  return dump_json(json, 2) + "\n";
}

void refuse_existing(const std::filesystem::path& dir) {
  std::error_code error;
  const auto status = std::filesystem::status(dir, error);
  if (!std::filesystem::exists(status)) return;
  if (!std::filesystem::is_directory(status)) {
    fail(ErrorKind::usage, "{}: exists and is not a folder", dir.string());
  }
  if (!std::filesystem::is_empty(dir, error) || error) {
    fail(ErrorKind::usage, "{}: exists and is not empty", dir.string());
  }
}

// A folder beside the one to be written; removed with all it holds unless it was given its name.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::filesystem::path& target) : target_(target) {
    std::string name = target.string() + ".XXXXXX";
    if (::mkdtemp(name.data()) == nullptr || ::chmod(name.c_str(), 0755) != 0) {
      fail(ErrorKind::system, "{}: cannot create the folder: {}", target.string(),
           std::strerror(errno));
    }
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void rename_to_target() {
    if (::rename(path_.c_str(), target_.c_str()) != 0) {
      fail(ErrorKind::system, "{}: cannot rename the finished folder: {}", target_.string(),
           std::strerror(errno));
    }
    path_.clear();
  }

 private:
  std::filesystem::path target_;
  std::filesystem::path path_;
};

// What tells a folder's tokenizer, whichever of them there are.
constexpr const char* kTokenizerFiles[] = {
    "tokenizer.json",    "tokenizer.model",     "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "generation_config.json"};

void copy_tokenizer(const std::filesystem::path& from, const std::filesystem::path& to) {
  for (const char* name : kTokenizerFiles) {
    if (!std::filesystem::exists(std::filesystem::symlink_status(from / name))) continue;
    std::error_code error;
    std::filesystem::copy_file(resolve_weight_file(from, name), to / name, error);
    if (error) {
      fail(ErrorKind::system, "{}: cannot be written: {}", (to / name).string(), error.message());
    }
  }
}

void write_tokenizer(const TokenizerSpec& tokenizer, const ModelConfig& config,
                     const std::filesystem::path& to) {
  write_file_atomic(to / "generation_config.json", generation_config_json(tokenizer));
  write_file_atomic(to / "tokenizer.json", tokenizer_json(tokenizer));
  write_file_atomic(to / "tokenizer_config.json", tokenizer_config_json(tokenizer, config));
}

}  // namespace

void write_hf_folder(const std::filesystem::path& dir, const ModelConfig& config,
                     const TokenizerSpec& tokenizer, const std::vector<TensorSource>& tensors,
                     const std::string& quantization_config_json,
                     const std::string& manifest_json,
                     const std::filesystem::path& source_dir, const StagedPath& before_rename) {
  auto target = std::filesystem::absolute(dir).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();
  refuse_existing(target);
  const bool is_f32 = std::ranges::any_of(tensors, [](const TensorSource& tensor) {
    return tensor.name == "model.embed_tokens.weight" && tensor.dtype == "F32";
  });
  // Small files first: what cannot be written at all is then refused before the weights are made.
  TemporaryFolder folder(target);
  write_file_atomic(folder.path() / "config.json",
                    config_json(config, tokenizer, quantization_config_json,
                                is_f32 ? "float32" : "bfloat16"));
  if (source_dir.empty()) {
    write_tokenizer(tokenizer, config, folder.path());
  } else {
    copy_tokenizer(source_dir, folder.path());
  }
  if (!manifest_json.empty()) write_file_atomic(folder.path() / kManifestFile, manifest_json);
  write_safetensors(folder.path() / "model.safetensors", tensors);
  if (before_rename) before_rename(folder.path());
  folder.rename_to_target();
}

}  // namespace tandem
