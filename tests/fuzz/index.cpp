// The JSON files that say what a Hugging Face folder holds: model.safetensors.index.json, whose
// names must never lead out of the folder, and config.json. The input is both, with a NUL between.
#include <filesystem>

#include "base/error.h"
#include "base/json.h"
#include "formats/checkpoint.h"
#include "formats/shards.h"
#include "formats/tiny_folder.h"
#include "fuzz/json_mutator.h"
#include "fuzz/target.h"

namespace tandem::fuzz {
namespace {

namespace fs = std::filesystem;

// a.safetensors and b.safetensors hold the tiny model's tensors; link.safetensors leads out.
class ModelFolder {
 public:
  ModelFolder() {
    const fs::path dir = fs::path(folder_.path()) / "model";
    fs::create_directory(dir);
    write_tiny_texts(dir);
    std::vector<TensorSource> halves[2];
    for (TensorSource& tensor : tiny_tensors()) {
      halves[(halves[0].size() + halves[1].size()) % 2].push_back(std::move(tensor));
    }
    write_safetensors(dir / "a.safetensors", halves[0]);
    write_safetensors(dir / "b.safetensors", halves[1]);
    write_safetensors(dir.parent_path() / "outside.safetensors", halves[1]);
    fs::create_symlink("../outside.safetensors", dir / "link.safetensors");
  }
  fs::path path() const { return fs::path(folder_.path()) / "model"; }
  void write(const std::string& name, std::string_view bytes) const {
    folder_.write("model/" + name, bytes);
  }

 private:
  ScratchFolder folder_;
};

void run(std::string_view input) {
  static const ModelFolder folder;
  const size_t border = std::min(input.find('\0'), input.size());
  folder.write("model.safetensors.index.json", input.substr(0, border));
  folder.write("config.json", input.substr(std::min(border + 1, input.size())));
  expect_error_or_success([] {
    for (const auto& file : open_folder_weights(folder.path()).files) {
      require(fs::canonical(file->path()).parent_path() == fs::canonical(folder.path()),
              "no file outside of the folder is opened");
    }
  });
  expect_error_or_success([] { load_checkpoint(folder.path()); });
}

std::string index_text() {
  Json map = Json::object();
  size_t count = 0;
  for (const auto& tensor : tiny_tensors()) {
    map[tensor.name] = count++ % 2 == 0 ? "a.safetensors" : "b.safetensors";
  }
  return dump_json({{"metadata", {{"total_size", 1}}}, {"weight_map", map}});
}

std::string mutate(const std::string& input, Random& random, const ByteMutator& bytes) {
  static const std::vector<std::string> kIndexWords = {"weight_map",
                                                       "metadata",
                                                       "total_size",
                                                       "a.safetensors",
                                                       "b.safetensors",
                                                       "link.safetensors",
                                                       "../outside.safetensors",
                                                       "/etc/passwd",
                                                       "a/../a.safetensors",
                                                       ".safetensors",
                                                       "model.norm.weight",
                                                       "lm_head.weight"};
  static const std::vector<std::string> kConfigWords = {"llama",
                                                        "mistral",
                                                        "qwen2",
                                                        "qwen3",
                                                        "phi3",
                                                        "linear",
                                                        "dynamic",
                                                        "llama3",
                                                        "yarn",
                                                        "rope_scaling",
                                                        "rope_parameters",
                                                        "rope_type",
                                                        "type",
                                                        "factor",
                                                        "low_freq_factor",
                                                        "high_freq_factor",
                                                        "original_max_position_embeddings",
                                                        "rope_theta",
                                                        "head_dim",
                                                        "sliding_window",
                                                        "use_sliding_window",
                                                        "layer_types",
                                                        "full_attention",
                                                        "quantization_config",
                                                        "compressed-tensors",
                                                        "quant_method",
                                                        "config_groups",
                                                        "group_0",
                                                        "weights",
                                                        "num_bits",
                                                        "group_size",
                                                        "pack-quantized",
                                                        "int-quantized",
                                                        "ignore",
                                                        "targets",
                                                        "Linear",
                                                        "dtype"};
  const size_t border = std::min(input.find('\0'), input.size());
  std::string index = input.substr(0, border),
              config = input.substr(std::min(border + 1, input.size()));
  if (random.below(2) == 0) {
    index = mutate_json(index, random, bytes, kIndexWords);
  } else {
    config = mutate_json(config, random, bytes, kConfigWords);
  }
  return index + '\0' + config;
}

std::vector<std::string> seeds() {
  const std::string index = index_text();
  std::vector<std::string> out = {index + '\0' + kTinyConfig, index + '\0' + "{}",
                                  std::string("{}\0{}", 5)};
  const Json config = parse_json(kTinyConfig, "x");
  const auto add = [&](const char* key, const char* value) {
    Json changed = config;
    changed[key] = parse_json(value, "x");
    out.push_back(index + '\0' + dump_json(changed));
  };
  add("rope_scaling", R"({"rope_type":"linear","factor":2.0})");
  add("rope_scaling", R"({"type":"dynamic","factor":2.0})");
  add("rope_parameters",
      R"({"rope_type":"llama3","rope_theta":1e5,"factor":8.0,"low_freq_factor":1.0,)"
      R"("high_freq_factor":4.0,"original_max_position_embeddings":32})");
  add("sliding_window", "16");
  add("tie_word_embeddings", "false");
  add("quantization_config",
      R"({"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"group_0":)"
      R"({"targets":["Linear"],"weights":{"num_bits":4,"type":"int","strategy":"group",)"
      R"("group_size":32,"symmetric":true,"dynamic":false},"input_activations":null}},"ignore":["lm_head"]})");
  for (const char* family : {"mistral", "qwen2", "qwen3", "phi3"}) {
    Json changed = config;
    changed["model_type"] = family;
    changed.erase("architectures");
    out.push_back(index + '\0' + dump_json(changed));
  }
  return out;
}

}  // namespace

const Target& index_target() {
  static const Target target{"index", run, seeds, mutate};
  return target;
}

}  // namespace tandem::fuzz
