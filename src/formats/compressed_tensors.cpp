#include "formats/compressed_tensors.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace tandem {
namespace {

constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kPacked = ".weight_packed";
constexpr std::string_view kScale = ".weight_scale";
constexpr std::string_view kShape = ".weight_shape";
// A row's products of bytes, 255 x 127 at most, must sum up within 32 bits.
constexpr int64_t kMaxInt8Width = 65536;

// Refuses json[key] unless it equals `wanted`; a key that is absent counts as null.
void expect(const Json& json, const char* key, const Json& wanted, const std::string& where) {
  const auto it = json.find(key);
  const Json found = it == json.end() ? Json(nullptr) : *it;
  if (found != wanted) {
    fail(ErrorKind::bad_file, "{}: '{}' is {}; only {} is supported by this version", where, key,
         quote(dump_json(found)), dump_json(wanted));
  }
}

const Json& object(const Json& json, const char* key, const std::string& where) {
  const auto it = json.find(key);
  if (it == json.end() || !it->is_object()) {
    fail(ErrorKind::bad_file, "{}: '{}' is missing or not an object", where, key);
  }
  return *it;
}

void expect_numbers(const Json& json, const char* type, int64_t bits, const char* strategy,
                    bool dynamic, const std::string& where) {
  expect(json, "num_bits", bits, where);
  expect(json, "type", type, where);
  expect(json, "strategy", strategy, where);
  expect(json, "symmetric", true, where);
  expect(json, "dynamic", dynamic, where);
  if (json.contains("actorder")) expect(json, "actorder", nullptr, where);
}

ScaleType scale_type(const SafetensorsEntry& scale, const std::string& where) {
  if (scale.dtype == "F32") return ScaleType::f32;
  if (scale.dtype == "F16") return ScaleType::f16;
  if (scale.dtype == "BF16") return ScaleType::bf16;
  fail(ErrorKind::bad_file, "{}: scales of type {}, expected F32, F16 or BF16", where, scale.dtype);
}

void expect_tensor(const SafetensorsEntry& entry, std::string_view dtype,
                   const std::vector<int64_t>& shape, const std::string& where) {
  if ((dtype.empty() || entry.dtype == dtype) && entry.shape == shape) return;
  fail(ErrorKind::bad_file, "{}: {} is {} [{}], expected {} [{}]", where, quote(entry.name),
       entry.dtype, fmt::join(entry.shape, ", "), dtype.empty() ? "scales" : dtype,
       fmt::join(shape, ", "));
}

class WeightReader {
 public:
  WeightReader(const SafetensorsFile& file, const std::optional<QuantizationConfig>& quantization,
               const std::string& where)
      : quantization_(quantization), where_(where) {
    for (const auto& entry : file.tensors) entries_.emplace(entry.name, &entry);
  }

  // Nothing when the entry belongs to another one.
  std::optional<NamedTensor> read(const SafetensorsEntry& entry) const {
    const std::string_view name = entry.name;
    if (name.ends_with(kPacked)) return read_packed(entry);
    if (name.ends_with(kWeight) && is_bytes(entry)) return read_bytes(entry);
    for (const auto& [suffix, owner] :
         {std::pair(kScale, kWeight), std::pair(kScale, kPacked), std::pair(kShape, kPacked)}) {
      if (!name.ends_with(suffix)) continue;
      const auto it = entries_.find(with(entry, suffix, owner));
      if (it != entries_.end() && (owner == kPacked || is_bytes(*it->second))) return std::nullopt;
    }
    return read_plain(entry);
  }

 private:
  static bool is_bytes(const SafetensorsEntry& entry) {
    return entry.dtype == "I8" || entry.dtype == "F8_E4M3";
  }

  // The entry's name with another ending.
  static std::string with(const SafetensorsEntry& entry, std::string_view suffix,
                          std::string_view replacement) {
    return entry.name.substr(0, entry.name.size() - suffix.size()) + std::string(replacement);
  }

  std::string tensor(const SafetensorsEntry& entry) const {
    return fmt::format("{}: tensor {}", where_, quote(entry.name));
  }

  const SafetensorsEntry& companion(const SafetensorsEntry& entry, std::string_view suffix,
                                    std::string_view replacement) const {
    const auto it = entries_.find(with(entry, suffix, replacement));
    if (it == entries_.end()) {
      fail(ErrorKind::bad_file, "{}: its companion {} is missing", tensor(entry),
           quote(with(entry, suffix, replacement)));
    }
    return *it->second;
  }

  void require(const SafetensorsEntry& entry, bool as_configured) const {
    if (!quantization_ || !as_configured || is_ignored(entry)) {
      fail(ErrorKind::bad_file,
           "{}: quantized, but quantization_config in config.json does not say so", tensor(entry));
    }
  }

  bool has(Packing packing) const { return quantization_ && quantization_->packing == packing; }

  bool is_ignored(const SafetensorsEntry& entry) const {
    const std::string module = entry.name.substr(0, entry.name.rfind('.'));
    const auto& ignored = quantization_->ignored;
    return std::find(ignored.begin(), ignored.end(), module) != ignored.end();
  }

  NamedTensor read_bytes(const SafetensorsEntry& entry) const {
    const bool is_int8 = entry.dtype == "I8";
    require(entry, is_int8 ? has(Packing::int8_channel)
                           : has(Packing::fp8_channel) || has(Packing::fp8_weight));
    if (entry.shape.size() != 2) fail(ErrorKind::bad_file, "{}: not a matrix", tensor(entry));
    if (is_int8 && entry.shape[1] > kMaxInt8Width) {
      fail(ErrorKind::bad_file, "{}: rows of {} elements, at most {} are supported with one scale",
           tensor(entry), entry.shape[1], kMaxInt8Width);
    }
    const auto& scale = companion(entry, kWeight, kScale);
    expect_tensor(scale, "", {entry.shape[0], 1}, tensor(entry));
    Weight weight;
    weight.encoding = {quantization_->packing, scale_type(scale, tensor(entry)), 0};
    weight.N = entry.shape[0];
    weight.K = entry.shape[1];
    weight.data = entry.bytes.data();
    weight.scales = scale.bytes.data();
    return {entry.name, weight};
  }

  NamedTensor read_packed(const SafetensorsEntry& entry) const {
    require(entry, has(Packing::int4_group));
    const std::string where = tensor(entry);
    const auto& shape = companion(entry, kPacked, kShape);
    expect_tensor(shape, "I64", {2}, where);
    int64_t dims[2];
    std::memcpy(dims, shape.bytes.data(), sizeof dims);
    const auto [N, K] = dims;
    const int64_t group = quantization_->group;
    // Bounded by the bytes at hand before anything is computed from it.
    if (N < 1 || K < 1 || static_cast<uint64_t>(K) / 2 > entry.bytes.size()) {
      fail(ErrorKind::bad_file, "{}: weight_shape is [{}, {}]", where, N, K);
    }
    if (K % group != 0) {
      fail(ErrorKind::bad_file, "{}: groups of {} do not divide a width of {}", where, group, K);
    }
    expect_tensor(entry, "I32", {N, (K + 7) / 8}, where);
    const auto& scale = companion(entry, kPacked, kScale);
    expect_tensor(scale, "", {N, K / group}, where);
    Weight weight;
    weight.encoding = int4_group(group, scale_type(scale, where));
    weight.N = N;
    weight.K = K;
    weight.data = entry.bytes.data();
    weight.scales = scale.bytes.data();
    return {with(entry, kPacked, kWeight), weight};
  }

  NamedTensor read_plain(const SafetensorsEntry& entry) const {
    Weight weight;
    if (entry.dtype == "F32") {
      weight.encoding = kF32;
    } else if (entry.dtype == "F16") {
      weight.encoding = kF16;
    } else if (entry.dtype == "BF16") {
      weight.encoding = kBF16;
    } else {
      fail(ErrorKind::bad_file, "{}: of type {}, not part of a model as this version knows it",
           tensor(entry), entry.dtype);
    }
    const bool linear = entry.name.ends_with("_proj.weight") || entry.name == "lm_head.weight";
    if (quantization_ && linear && !is_ignored(entry)) {
      fail(ErrorKind::bad_file,
           "{}: {}, but quantization_config in config.json says it is quantized", tensor(entry),
           entry.dtype);
    }
    if (entry.shape.empty() || entry.shape.size() > 2) {
      fail(ErrorKind::bad_file, "{}: {} dimensions, expected a vector or a matrix", tensor(entry),
           entry.shape.size());
    }
    weight.N = entry.shape.size() == 2 ? entry.shape[0] : 1;
    weight.K = entry.shape.back();
    weight.data = entry.bytes.data();
    return {entry.name, weight};
  }

  const std::optional<QuantizationConfig>& quantization_;
  const std::string& where_;
  std::map<std::string_view, const SafetensorsEntry*> entries_;
};

}  // namespace

QuantizationConfig read_quantization_config(const Json& json, const std::string& where) {
  if (!json.is_object())
    fail(ErrorKind::bad_file, "{}: quantization_config is not an object", where);
  const std::string config = where + ": quantization_config";
  expect(json, "quant_method", "compressed-tensors", config);
  for (const char* key : {"kv_cache_scheme", "sparsity_config"}) {
    if (json.contains(key) && !json[key].empty()) expect(json, key, nullptr, config);
  }
  const Json& groups = object(json, "config_groups", config);
  if (groups.size() != 1) {
    fail(ErrorKind::bad_file, "{}: {} config_groups; only one is supported by this version", config,
         groups.size());
  }
  const Json& group = groups.begin().value();
  if (!group.is_object()) fail(ErrorKind::bad_file, "{}: its group is not an object", config);
  expect(group, "targets", Json::array({"Linear"}), config);

  QuantizationConfig out;
  const Json& weights = object(group, "weights", config);
  if (json.contains("format") && json["format"] == "pack-quantized") {
    out.packing = Packing::int4_group;
    expect_numbers(weights, "int", 4, "group", false, config + ": weights");
    expect(group, "input_activations", nullptr, config);
    const auto it = weights.find("group_size");
    if (it == weights.end() || !it->is_number_unsigned() || it->get<uint64_t>() % 32 != 0 ||
        *it == 0 || it->get<uint64_t>() > 65536) {
      fail(ErrorKind::bad_file, "{}: weights: 'group_size' is {}, expected a multiple of 32",
           config, it == weights.end() ? "missing" : quote(dump_json(*it)));
    }
    out.group = it->get<int64_t>();
  } else {
    const bool is_float = json.contains("format") && json["format"] == "float-quantized";
    if (!is_float) expect(json, "format", "int-quantized", config);
    const char* type = is_float ? "float" : "int";
    expect_numbers(weights, type, 8, "channel", false, config + ": weights");
    const auto activations = group.find("input_activations");
    const bool weights_only =
        is_float && (activations == group.end() || activations->is_null());
    if (!weights_only) {
      expect_numbers(object(group, "input_activations", config), type, 8, "token", true,
                     config + ": input_activations");
    }
    out.packing = !is_float      ? Packing::int8_channel
                  : weights_only ? Packing::fp8_weight
                                 : Packing::fp8_channel;
  }
  const auto ignore = json.find("ignore");
  if (ignore == json.end() || ignore->is_null()) return out;
  if (!ignore->is_array()) fail(ErrorKind::bad_file, "{}: 'ignore' is not an array", config);
  for (const auto& module : *ignore) {
    if (!module.is_string() || module.get<std::string>().starts_with("re:")) {
      fail(ErrorKind::bad_file,
           "{}: 'ignore' holds {}; only names of modules are supported by this version", config,
           quote(dump_json(module)));
    }
    out.ignored.push_back(module.get<std::string>());
  }
  return out;
}

std::vector<NamedTensor> read_weights(const SafetensorsFile& file,
                                      const std::optional<QuantizationConfig>& quantization,
                                      const std::string& where) {
  const WeightReader reader(file, quantization, where);
  std::vector<NamedTensor> tensors;
  for (const auto& entry : file.tensors) {
    if (auto tensor = reader.read(entry)) tensors.push_back(std::move(*tensor));
  }
  return tensors;
}

}  // namespace tandem
