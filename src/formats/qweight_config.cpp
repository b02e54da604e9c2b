#include <algorithm>
#include <initializer_list>

#include "base/error.h"
#include "formats/qweight.h"

namespace tandem {
namespace {

// json[key] where it is not null.
const Json* member(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it == json.end() || it->is_null() ? nullptr : &*it;
}

[[noreturn]] void wrong(const std::string& where, const char* key, const Json* found,
                        const std::string& expected) {
  fail(ErrorKind::bad_file, "{}: '{}' is {}, expected {}", where, key,
       found == nullptr ? "missing" : quote(dump_json(*found)), expected);
}

bool flag(const Json& json, const char* key, bool otherwise, const std::string& where) {
  const Json* value = member(json, key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) wrong(where, key, value, "true or false");
  return value->get<bool>();
}

std::string lower(const Json& json, const char* key, const char* otherwise,
                  const std::string& where) {
  const Json* value = member(json, key);
  if (value == nullptr) return otherwise;
  if (!value->is_string()) wrong(where, key, value, "a string");
  std::string text = value->get<std::string>();
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

// Strings of an array, or of an array of arrays.
void add_names(const Json& json, const char* key, const std::string& where,
               std::vector<std::string>* out) {
  if (json.is_string()) {
    out->push_back(json.get<std::string>());
    return;
  }
  if (!json.is_array()) wrong(where, key, &json, "an array of names");
  for (const Json& element : json) add_names(element, key, where, out);
}

void read_numbers(const Json& json, std::initializer_list<int> known_bits, const std::string& where,
                  QweightConfig* out) {
  const Json* bits = member(json, "bits");
  const bool known = bits != nullptr && bits->is_number_integer() &&
                     std::ranges::find(known_bits, bits->get<int64_t>()) != known_bits.end();
  if (!known) wrong(where, "bits", bits, fmt::format("one of {}", fmt::join(known_bits, ", ")));
  out->bits = bits->get<int>();
  const Json* group = member(json, "group_size");
  const bool is_group =
      group != nullptr && group->is_number_integer() &&
      (*group == -1 || (*group >= 32 && *group <= 65536 && group->get<int64_t>() % 32 == 0));
  if (!is_group) wrong(where, "group_size", group, "-1 or a multiple of 32");
  out->group = *group == -1 ? 0 : group->get<int64_t>();
}

void read_gptq_config(const Json& json, const std::string& where, QweightConfig* out) {
  read_numbers(json, {2, 3, 4, 8}, where, out);
  const std::string format = lower(json, "checkpoint_format", "gptq", where);
  if (format != "gptq" && format != "gptq_v2") {
    wrong(where, "checkpoint_format", member(json, "checkpoint_format"), "gptq or gptq_v2");
  }
  if (lower(json, "pack_dtype", "int32", where) != "int32") {
    wrong(where, "pack_dtype", member(json, "pack_dtype"), "int32");
  }
  if (const Json* dynamic = member(json, "dynamic"); dynamic != nullptr && !dynamic->empty()) {
    wrong(where, "dynamic", dynamic, "no settings of single modules");
  }
  out->zeros_less_one = format == "gptq";
  out->symmetric = flag(json, "sym", true, where);
  out->reorders = flag(json, "desc_act", false, where);
  if (const Json* modules = member(json, "modules_in_block_to_quantize")) {
    add_names(*modules, "modules_in_block_to_quantize", where, &out->quantized);
  }
}

void read_awq_config(const Json& json, const std::string& where, QweightConfig* out) {
  read_numbers(json, {4}, where, out);
  const std::string version = lower(json, "version", "gemm", where);
  if (version != "gemm" && version != "gemv")
    wrong(where, "version", member(json, "version"), "gemm or gemv");
  out->layout =
      version == "gemm" ? QweightConfig::Layout::awq_gemm : QweightConfig::Layout::awq_gemv;
}

}  // namespace

std::string QweightConfig::name() const {
  switch (layout) {
    case Layout::gptq:
      return zeros_less_one ? "GPTQ v1" : "GPTQ v2";
    case Layout::awq_gemm:
      return "AWQ gemm";
    case Layout::awq_gemv:
      return "AWQ gemv";
  }
  return "?";
}

bool is_qweight(const Json& json) {
  if (!json.is_object()) return false;
  const Json* method = member(json, "quant_method");
  return method != nullptr && (*method == "gptq" || *method == "awq");
}

QweightConfig read_qweight_config(const Json& json, const std::string& where) {
  const std::string config = where + ": quantization_config";
  QweightConfig out;
  if (json["quant_method"] == "gptq") {
    read_gptq_config(json, config, &out);
  } else {
    read_awq_config(json, config, &out);
  }
  if (const Json* modules = member(json, "modules_to_not_convert")) {
    add_names(*modules, "modules_to_not_convert", config, &out.plain);
  }
  return out;
}

}  // namespace tandem
