#include <algorithm>

#include "base/error.h"
#include "formats/compressed_tensors.h"

namespace tandem {
namespace {

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

// nullptr when it is absent or null.
const Json* member(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it == json.end() || it->is_null() ? nullptr : &*it;
}

std::string text(const Json& json, const char* key, const char* otherwise,
                 const std::string& where) {
  const Json* value = member(json, key);
  if (value == nullptr) return otherwise;
  if (!value->is_string()) {
    fail(ErrorKind::bad_file, "{}: '{}' is {}, expected a string", where, key,
         quote(dump_json(*value)));
  }
  return value->get<std::string>();
}

void read_group(const Json& weights, const std::string& where, WeightScheme* out) {
  const std::string strategy = text(weights, "strategy", "", where);
  if (strategy == "tensor" || strategy == "channel") {
    out->scales =
        strategy == "tensor" ? WeightScheme::Scales::tensor : WeightScheme::Scales::channel;
    return;
  }
  if (strategy != "group") expect(weights, "strategy", "group", where);
  out->scales = WeightScheme::Scales::group;
  const auto it = weights.find("group_size");
  if (it == weights.end() || !it->is_number_unsigned() || it->get<uint64_t>() % 32 != 0 ||
      *it == 0 || it->get<uint64_t>() > 65536) {
    fail(ErrorKind::bad_file, "{}: 'group_size' is {}, expected a multiple of 32", where,
         it == weights.end() ? "missing" : quote(dump_json(*it)));
  }
  out->group = it->get<int64_t>();
}

void read_integers(const Json& weights, const std::string& where, WeightScheme* out) {
  expect(weights, "type", "int", where);
  expect(weights, "dynamic", false, where);
  const Json* bits = member(weights, "num_bits");
  const bool known = bits != nullptr &&
                     (*bits == 8 || (out->in_words && (*bits == 2 || *bits == 3 || *bits == 4)));
  if (!known) {
    fail(ErrorKind::bad_file, "{}: 'num_bits' is {}, expected {}", where,
         bits == nullptr ? "missing" : quote(dump_json(*bits)),
         out->in_words ? "2, 3, 4 or 8" : "8");
  }
  out->bits = bits->get<int>();
  const Json* symmetric = member(weights, "symmetric");
  if (symmetric != nullptr && !symmetric->is_boolean()) expect(weights, "symmetric", true, where);
  out->symmetric = symmetric == nullptr || symmetric->get<bool>();
  read_group(weights, where, out);
  const std::string order = text(weights, "actorder", "", where);
  if (order != "" && order != "weight" && order != "static" && order != "group") {
    fail(ErrorKind::bad_file, "{}: 'actorder' is {}, expected weight, static or group", where,
         quote(order));
  }
  out->reorders = order == "group";
}

// Activations meet integers in groups as the kernels have them, finer than any scheme here: so
// those of a token, or none, are all the same.
void expect_dynamic_bytes(const Json& group, const std::string& where) {
  const Json* activations = member(group, "input_activations");
  if (activations == nullptr) return;
  if (!activations->is_object()) expect(group, "input_activations", nullptr, where);
  const std::string inner = where + ": input_activations";
  expect(*activations, "num_bits", 8, inner);
  expect(*activations, "type", "int", inner);
  expect(*activations, "dynamic", true, inner);
}

void read_scheme(const Json& group, const std::string& format, const std::string& where,
                 WeightScheme* out) {
  const std::string inner = where + ": weights";
  const Json& weights = object(group, "weights", where);
  const Json* activations = member(group, "input_activations");
  if (format == "float-quantized" || (format == "naive-quantized" && weights.value("type", Json()) == "float")) {
    expect(weights, "type", "float", inner);
    out->bytes = read_byte_scheme(weights, activations, where);
    return;
  }
  out->is_marlin24 = format == "marlin-24";
  out->in_words = format == "pack-quantized" || out->is_marlin24;
  if (!out->in_words && format != "naive-quantized" && format != "int-quantized") {
    fail(ErrorKind::bad_file,
         "{}: 'format' is {}; only int-quantized, naive-quantized, float-quantized, pack-quantized "
         "and marlin-24 are supported by this version",
         where, quote(format));
  }
  read_integers(weights, inner, out);
  if (out->in_words) expect(group, "input_activations", nullptr, where);
  if (out->is_marlin24 &&
      (out->bits != 4 || !out->symmetric || out->reorders || out->scales == WeightScheme::Scales::tensor)) {
    fail(ErrorKind::bad_file,
         "{}: marlin-24 of {}, expected 4 bits, symmetric, scales of rows or groups, columns in order",
         where, quote(dump_json(weights)));
  }
  const bool one_scale = out->symmetric && out->scales != WeightScheme::Scales::group;
  if (!out->in_words && one_scale && activations != nullptr) {
    out->bytes = read_byte_scheme(weights, activations, where);
    return;
  }
  expect_dynamic_bytes(group, where);
  out->kind = WeightScheme::Kind::integers;
}

// 2:4 in a file of its own kind; dense files of it say no more than that some numbers are zero.
bool has_masks(const Json& json, const std::string& where) {
  const Json* sparsity = member(json, "sparsity_config");
  if (sparsity == nullptr || sparsity->empty()) return false;
  const std::string inner = where + ": sparsity_config";
  if (!sparsity->is_object()) fail(ErrorKind::bad_file, "{}: not an object", inner);
  const std::string format = text(*sparsity, "format", "", inner);
  if (format == "dense") return false;
  if (format == "sparse-24-bitmask") return true;
  fail(ErrorKind::bad_file, "{}: 'format' is {}, expected sparse-24-bitmask or dense", inner, quote(format));
}

std::vector<std::string> names(const Json& json, const char* key, const std::string& where) {
  std::vector<std::string> out;
  const Json* array = member(json, key);
  if (array == nullptr) return out;
  if (!array->is_array()) fail(ErrorKind::bad_file, "{}: '{}' is not an array", where, key);
  for (const Json& name : *array) {
    if (!name.is_string())
      fail(ErrorKind::bad_file, "{}: '{}' holds {}", where, key, quote(dump_json(name)));
    out.push_back(name.get<std::string>());
  }
  return out;
}

bool any_matches(const std::vector<ModulePattern>& patterns, std::string_view module, bool regex) {
  return std::ranges::any_of(patterns, [&](const ModulePattern& pattern) {
    return pattern.is_regex() == regex && pattern.matches(module);
  });
}

}  // namespace

const WeightScheme* QuantizationConfig::scheme_of(std::string_view module) const {
  if (any_matches(ignored, module, false) || any_matches(ignored, module, true)) return nullptr;
  for (const bool regex : {false, true}) {
    for (const WeightScheme& scheme : schemes) {
      if (any_matches(scheme.targets, module, regex)) return &scheme;
    }
  }
  for (const WeightScheme& scheme : schemes) {
    if (scheme.all_linear) return &scheme;
  }
  return nullptr;
}

QuantizationConfig read_quantization_config(const Json& json, const std::string& where) {
  if (!json.is_object())
    fail(ErrorKind::bad_file, "{}: quantization_config is not an object", where);
  const std::string config = where + ": quantization_config";
  expect(json, "quant_method", "compressed-tensors", config);
  const std::string format = text(json, "format", "", config);
  QuantizationConfig out;
  out.has_masks = has_masks(json, config);
  const Json* groups = member(json, "config_groups");
  if (out.has_masks && (groups == nullptr || groups->empty())) return out;
  for (const auto& [name, group] : object(json, "config_groups", config).items()) {
    const std::string inner = fmt::format("{}: {}", config, quote(name));
    if (!group.is_object()) fail(ErrorKind::bad_file, "{}: not an object", inner);
    WeightScheme scheme;
    scheme.all_linear = false;
    for (const std::string& target : names(group, "targets", inner)) {
      if (target == "Linear") {
        scheme.all_linear = true;
      } else {
        scheme.targets.emplace_back(target);
      }
    }
    read_scheme(group, text(group, "format", format.c_str(), inner), inner, &scheme);
    out.schemes.push_back(std::move(scheme));
  }
  if (out.schemes.empty()) fail(ErrorKind::bad_file, "{}: 'config_groups' is empty", config);
  for (const std::string& module : names(json, "ignore", config)) out.ignored.emplace_back(module);
  return out;
}

}  // namespace tandem
