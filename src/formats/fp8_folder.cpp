#include "formats/fp8_folder.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "formats/compressed_tensors.h"

namespace tandem {
namespace {

constexpr std::string_view kWeight = ".weight", kScale = ".weight_scale",
                           kBlockScale = ".weight_scale_inv", kInputScale = ".input_scale";

class Reader {
 public:
  Reader(const SafetensorsFile& file, const Fp8Config& config, const std::string& where,
         std::vector<std::shared_ptr<const Buffer>>* memory)
      : config_(config), where_(where), memory_(memory) {
    for (const auto& entry : file.tensors) entries_.emplace(entry.name, &entry);
  }

  // Nothing when the entry belongs to another one.
  std::optional<NamedTensor> read(const SafetensorsEntry& entry) const {
    const std::string_view name = entry.name;
    if (name.ends_with(kWeight) && entry.dtype == "F8_E4M3") return read_bytes(entry);
    for (const std::string_view suffix : {kScale, kBlockScale, kInputScale}) {
      if (!name.ends_with(suffix)) continue;
      const std::string module(name.substr(0, name.size() - suffix.size()));
      const SafetensorsEntry* owner = find(module, kWeight);
      if (owner != nullptr && owner->dtype == "F8_E4M3") return std::nullopt;
    }
    const bool linear = name.ends_with("_proj.weight");
    if (linear && !is_ignored(std::string(name.substr(0, name.rfind('.'))))) {
      fail(ErrorKind::bad_file,
           "{}: tensor {}: {}, but quantization_config in config.json says it is quantized", where_,
           quote(name), entry.dtype);
    }
    SafetensorsFile one;
    one.tensors.push_back(entry);
    return read_weights(one, std::nullopt, where_).front();
  }

 private:
  const SafetensorsEntry* find(const std::string& module, std::string_view suffix) const {
    const auto it = entries_.find(module + std::string(suffix));
    return it == entries_.end() ? nullptr : it->second;
  }

  // A name in the config stands for itself and all below it.
  bool is_ignored(const std::string& module) const {
    return std::ranges::any_of(config_.ignored, [&](const std::string& name) {
      return module == name || module.starts_with(name + ".") || module.ends_with("." + name);
    });
  }

  NamedTensor read_bytes(const SafetensorsEntry& entry) const {
    const std::string where = fmt::format("{}: tensor {}", where_, quote(entry.name));
    const std::string module = entry.name.substr(0, entry.name.size() - kWeight.size());
    const std::string_view suffix = config_.block_rows != 0 ? kBlockScale : kScale;
    const SafetensorsEntry* scale = find(module, suffix);
    if (scale == nullptr) {
      fail(ErrorKind::bad_file, "{}: its companion {} is missing", where,
           quote(module + std::string(suffix)));
    }
    ByteScheme scheme;
    scheme.block_rows = config_.block_rows;
    scheme.inputs = config_.has_input_scales ? ByteScheme::Inputs::fixed : ByteScheme::Inputs::dynamic;
    const bool is_one = scale->shape.empty() || scale->shape == std::vector<int64_t>{1};
    scheme.scales = config_.block_rows != 0 ? ByteScheme::Scales::block
                    : is_one                ? ByteScheme::Scales::tensor
                                            : ByteScheme::Scales::row;
    return {entry.name, read_byte_weight(scheme, entry, *scale, find(module, kInputScale), where, memory_)};
  }

  const Fp8Config& config_;
  const std::string& where_;
  std::vector<std::shared_ptr<const Buffer>>* memory_;
  std::map<std::string, const SafetensorsEntry*, std::less<>> entries_;
};

}  // namespace

bool is_fp8_config(const Json& json) {
  return json.is_object() && json.contains("quant_method") && json["quant_method"] == "fp8";
}

Fp8Config read_fp8_config(const Json& json, const std::string& where) {
  const std::string config = where + ": quantization_config";
  Fp8Config out;
  const Json scheme = json.value("activation_scheme", Json("dynamic"));
  if (scheme != "dynamic" && scheme != "static") {
    fail(ErrorKind::bad_file, "{}: 'activation_scheme' is {}, expected dynamic or static", config,
         quote(dump_json(scheme)));
  }
  out.has_input_scales = scheme == "static";
  const Json format = json.value("fmt", Json("e4m3"));
  if (format != "e4m3") {
    fail(ErrorKind::bad_file, "{}: 'fmt' is {}, expected e4m3", config, quote(dump_json(format)));
  }
  const auto block = json.find("weight_block_size");
  if (block != json.end() && !block->is_null()) {
    out.block_rows = read_block_rows(*block, config + ": weight_block_size");
  }
  for (const char* key : {"ignored_layers", "modules_to_not_convert"}) {
    const auto names = json.find(key);
    if (names == json.end() || names->is_null()) continue;
    if (!names->is_array()) fail(ErrorKind::bad_file, "{}: '{}' is not an array", config, key);
    for (const Json& name : *names) {
      if (!name.is_string()) {
        fail(ErrorKind::bad_file, "{}: '{}' holds {}, expected names of modules", config, key,
             quote(dump_json(name)));
      }
      out.ignored.push_back(name.get<std::string>());
    }
  }
  return out;
}

std::vector<NamedTensor> read_fp8_weights(const SafetensorsFile& file, const Fp8Config& config,
                                          const std::string& where,
                                          std::vector<std::shared_ptr<const Buffer>>* memory) {
  const Reader reader(file, config, where, memory);
  std::vector<NamedTensor> tensors;
  for (const auto& entry : file.tensors) {
    if (auto tensor = reader.read(entry)) tensors.push_back(std::move(*tensor));
  }
  return tensors;
}

}  // namespace tandem
