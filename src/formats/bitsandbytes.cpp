#include "formats/bitsandbytes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <span>

#include "base/error.h"
#include "formats/compressed_tensors.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kStatePrefix = ".quant_state.bitsandbytes__";
constexpr size_t kMaxStateBytes = 4096;
// The kernels and the rows of a weight want whole blocks: bitsandbytes has 32 ... 4096.
constexpr int64_t kSmallestBlock = 32, kLargestBlock = 4096;
constexpr int64_t kMaxInt8Width = 65536;  // of a row whose products are summed in 32 bits
constexpr std::string_view kMagnitudes = ".SCB", kFormat = ".weight_format";

const char* type_name(Packing packing) {
  return packing == Packing::nf4 ? "nf4" : packing == Packing::fp4 ? "fp4" : "codebook";
}

// What quant_state says.
struct State {
  int64_t N = 0, K = 0, block = 0;
  bool nested = false;
  int64_t nested_block = 0;
  float nested_offset = 0;
};

class Reader {
 public:
  Reader(const SafetensorsFile& file, const BitsandbytesConfig& config, const std::string& where,
         std::vector<std::shared_ptr<const Buffer>>* memory)
      : config_(config), where_(where), memory_(memory) {
    for (const auto& entry : file.tensors) entries_.emplace(entry.name, &entry);
  }

  // Nothing when the entry belongs to another one.
  std::optional<NamedTensor> read(const SafetensorsEntry& entry) const {
    const std::string_view name = entry.name;
    if (name.ends_with(kWeight)) {
      if (entry.dtype == "U8" && config_.packing != Packing::llm_int8) return read_codes(entry);
      if (entry.dtype == "I8" && config_.packing == Packing::llm_int8) return read_rows(entry);
      return read_one_plain(entry);
    }
    for (const std::string_view suffix : {kMagnitudes, kFormat}) {
      if (!name.ends_with(suffix)) continue;
      const std::string module(name.substr(0, name.size() - suffix.size()));
      if (entries_.contains(fmt::format("{}{}", module, kWeight))) return std::nullopt;
    }
    const size_t weight = name.rfind(".weight.");
    if (weight != std::string_view::npos &&
        entries_.contains(name.substr(0, weight + kWeight.size())))
      return std::nullopt;
    return read_one_plain(entry);
  }

 private:
  std::string tensor(const SafetensorsEntry& entry) const {
    return fmt::format("{}: tensor {}", where_, quote(entry.name));
  }

  // A tensor that no quantization concerns, as any folder has it.
  NamedTensor read_one_plain(const SafetensorsEntry& entry) const {
    SafetensorsFile one;
    one.tensors.push_back(entry);
    const bool linear = entry.name.ends_with("_proj.weight") || entry.name == "lm_head.weight";
    const std::string module = entry.name.substr(0, entry.name.rfind('.'));
    if (linear && std::ranges::find(config_.skipped, module) == config_.skipped.end() &&
        module != "lm_head") {
      fail(ErrorKind::bad_file,
           "{}: {}, but quantization_config in config.json says it is quantized", tensor(entry),
           entry.dtype);
    }
    return read_weights(one, std::nullopt, where_).front();
  }

  // NAME.weight plus `suffix`, of this type and shape.
  const SafetensorsEntry& companion(const SafetensorsEntry& entry, const std::string& suffix,
                                    std::string_view dtype,
                                    const std::vector<int64_t>& shape) const {
    return beside(entry, entry.name + suffix, dtype, shape);
  }
  const SafetensorsEntry& beside(const SafetensorsEntry& entry, const std::string& name,
                                 std::string_view dtype, const std::vector<int64_t>& shape) const {
    const auto it = entries_.find(name);
    if (it == entries_.end()) {
      fail(ErrorKind::bad_file, "{}: its companion {} is missing", tensor(entry), quote(name));
    }
    const SafetensorsEntry& found = *it->second;
    if (found.dtype != dtype || (!shape.empty() && found.shape != shape)) {
      fail(ErrorKind::bad_file, "{}: {} [{}], expected {} [{}]", tensor(found), found.dtype,
           fmt::join(found.shape, ", "), dtype, fmt::join(shape, ", "));
    }
    return found;
  }

  State read_state(const SafetensorsEntry& entry) const {
    const auto& packed =
        companion(entry, std::string(kStatePrefix) + type_name(config_.packing), "U8", {});
    const std::string where = tensor(packed);
    if (packed.bytes.size() > kMaxStateBytes)
      fail(ErrorKind::bad_file, "{}: {} bytes, at most {} are read", where, packed.bytes.size(),
           kMaxStateBytes);
    const Json json = parse_json(
        {reinterpret_cast<const char*>(packed.bytes.data()), packed.bytes.size()}, where);
    State state;
    try {
      const auto& shape = json.at("shape");
      if (shape.size() != 2) fail(ErrorKind::bad_file, "{}: 'shape' is no matrix's", where);
      state.N = shape.at(0).get<int64_t>();
      state.K = shape.at(1).get<int64_t>();
      state.block = json.at("blocksize").get<int64_t>();
      state.nested = json.contains("nested_blocksize");
      if (state.nested) {
        state.nested_block = json.at("nested_blocksize").get<int64_t>();
        state.nested_offset = json.at("nested_offset").get<float>();
      }
    } catch (const Json::exception& error) {
      fail(ErrorKind::bad_file, "{}: {}", where, error.what());
    }
    check_state(state, entry, where);
    return state;
  }

  // Sizes are held to the bytes at hand before anything is computed from them.
  void check_state(const State& state, const SafetensorsEntry& entry,
                   const std::string& where) const {
    const auto bytes = static_cast<int64_t>(entry.bytes.size());
    const bool is_whole = state.N > 0 && state.K > 0 && state.N <= 2 * bytes &&
                          state.K <= 2 * bytes / state.N && state.N * state.K == 2 * bytes;
    if (!is_whole) {
      fail(ErrorKind::bad_file, "{}: shape [{}, {}], its codes are {} bytes", where, state.N,
           state.K, bytes);
    }
    if (state.block < kSmallestBlock || state.block > kLargestBlock || state.K % state.block != 0) {
      fail(ErrorKind::bad_file,
           "{}: blocks of {} in rows of {}; supported are blocks of {} to {} that divide a row",
           where, state.block, state.K, kSmallestBlock, kLargestBlock);
    }
    if (state.nested && (state.nested_block < 1 || state.nested_block > 1 << 20))
      fail(ErrorKind::bad_file, "{}: 'nested_blocksize' is {}", where, state.nested_block);
  }

  const std::byte* read_absmax(const SafetensorsEntry& entry, const State& state) const {
    const int64_t count = state.N * (state.K / state.block);
    if (!state.nested) return companion(entry, ".absmax", "F32", {count}).bytes.data();
    const auto* codes = companion(entry, ".absmax", "U8", {count}).bytes.data();
    const int64_t blocks = (count + state.nested_block - 1) / state.nested_block;
    const auto* scales = companion(entry, ".nested_absmax", "F32", {blocks}).bytes.data();
    const auto* map = companion(entry, ".nested_quant_map", "F32", {256}).bytes.data();
    auto buffer = std::make_shared<Buffer>(static_cast<size_t>(count) * sizeof(float));
    for (int64_t i = 0; i < count; ++i) {
      const float value = load_unaligned<float>(map + 4 * static_cast<int>(codes[i]));
      const float scale = load_unaligned<float>(scales + 4 * (i / state.nested_block));
      buffer->as<float>()[i] = value * scale + state.nested_offset;
    }
    memory_->push_back(buffer);
    return buffer->data();
  }

  // Those of nf4 and fp4 must be the type's own: null.
  const float* read_table(const SafetensorsEntry& map) const {
    auto table = std::make_shared<Buffer>(map.bytes.size());
    std::memcpy(table->data(), map.bytes.data(), map.bytes.size());
    const float* values = table->as<float>();
    if (config_.packing != Packing::codebook) {
      if (std::equal(values, values + 16, lookup_values(config_.packing))) return nullptr;
      fail(ErrorKind::bad_file, "{}: not the numbers of {}", tensor(map),
           type_name(config_.packing));
    }
    if (!std::all_of(values, values + 16, [](float value) { return std::isfinite(value); }))
      fail(ErrorKind::bad_file, "{}: holds a number that is NaN or infinite", tensor(map));
    memory_->push_back(table);
    return values;
  }

  NamedTensor read_codes(const SafetensorsEntry& entry) const {
    const State state = read_state(entry);
    Weight weight;
    weight.table = read_table(companion(entry, ".quant_map", "F32", {16}));
    weight.encoding = {config_.packing, ScaleType::f32, state.block};
    weight.N = state.N;
    weight.K = state.K;
    weight.data = entry.bytes.data();
    weight.scales = read_absmax(entry, state);
    return {entry.name, weight};
  }

  NamedTensor read_rows(const SafetensorsEntry& entry) const {
    if (entry.shape.size() != 2 || entry.shape[1] > kMaxInt8Width) {
      fail(ErrorKind::bad_file, "{}: [{}], expected a matrix of rows of at most {}", tensor(entry),
           fmt::join(entry.shape, ", "), kMaxInt8Width);
    }
    const std::string module = entry.name.substr(0, entry.name.size() - kWeight.size());
    const std::string format = fmt::format("{}{}", module, kFormat);
    if (entries_.contains(format)) {
      const auto& found = beside(entry, format, "U8", {});
      if (found.bytes.size() != 1 || found.bytes[0] != std::byte{0})
        fail(ErrorKind::bad_file, "{}: expected 0, rows", tensor(found));
    }
    Weight weight;
    weight.encoding = kLlmInt8;
    weight.N = entry.shape[0];
    weight.K = entry.shape[1];
    weight.data = entry.bytes.data();
    const auto& magnitudes =
        beside(entry, fmt::format("{}{}", module, kMagnitudes), "F32", {weight.N});
    auto scales = std::make_shared<Buffer>(magnitudes.bytes.size());
    for (int64_t n = 0; n < weight.N; ++n)
      scales->as<float>()[n] = load_unaligned<float>(magnitudes.bytes.data() + 4 * n) / 127.0f;
    weight.scales = scales->data();
    memory_->push_back(std::move(scales));
    return {entry.name, weight};
  }

  const BitsandbytesConfig& config_;
  const std::string& where_;
  std::vector<std::shared_ptr<const Buffer>>* memory_;
  std::map<std::string, const SafetensorsEntry*, std::less<>> entries_;
};

void expect(const Json& json, const char* key, const Json& wanted, const std::string& where) {
  const auto it = json.find(key);
  if (it == json.end() || it->is_null() || *it == wanted) return;
  fail(ErrorKind::bad_file, "{}: '{}' is {}; only {} is supported by this version", where, key,
       quote(dump_json(*it)), dump_json(wanted));
}

}  // namespace

bool is_bitsandbytes(const Json& json) {
  return json.is_object() && json.contains("quant_method") &&
         json["quant_method"] == "bitsandbytes";
}

BitsandbytesConfig read_bitsandbytes_config(const Json& json, const std::string& where) {
  const std::string config = where + ": quantization_config";
  BitsandbytesConfig out;
  const auto loads = [&](const char* key) { return json.contains(key) && json[key] == true; };
  if (loads("load_in_4bit") == loads("load_in_8bit"))
    fail(ErrorKind::bad_file, "{}: expected one of 'load_in_4bit' and 'load_in_8bit'", config);
  if (loads("load_in_8bit")) {
    expect(json, "llm_int8_threshold", kOutlierThreshold, config);
    expect(json, "llm_int8_has_fp16_weight", false, config);
    out.packing = Packing::llm_int8;
  } else {
    expect(json, "bnb_4bit_quant_storage", "uint8", config);
    const Json type = json.value("bnb_4bit_quant_type", Json("fp4"));  // the library's default
    if (type != "nf4" && type != "fp4" && type != "codebook") {
      fail(ErrorKind::bad_file, "{}: 'bnb_4bit_quant_type' is {}, expected nf4, fp4 or codebook",
           config, quote(dump_json(type)));
    }
    out.packing = type == "nf4"   ? Packing::nf4
                  : type == "fp4" ? Packing::fp4
                                  : Packing::codebook;
  }
  const auto skipped = json.find("llm_int8_skip_modules");
  if (skipped == json.end() || skipped->is_null()) return out;
  if (!skipped->is_array())
    fail(ErrorKind::bad_file, "{}: 'llm_int8_skip_modules' is not an array", config);
  for (const Json& module : *skipped) {
    if (!module.is_string()) {
      fail(ErrorKind::bad_file, "{}: 'llm_int8_skip_modules' holds {}", config,
           quote(dump_json(module)));
    }
    out.skipped.push_back(module.get<std::string>());
  }
  return out;
}

std::vector<NamedTensor> read_bitsandbytes_weights(
    const SafetensorsFile& file, const BitsandbytesConfig& config, const std::string& where,
    std::vector<std::shared_ptr<const Buffer>>* memory) {
  const Reader reader(file, config, where, memory);
  std::vector<NamedTensor> tensors;
  for (const auto& entry : file.tensors) {
    if (auto tensor = reader.read(entry)) tensors.push_back(std::move(*tensor));
  }
  return tensors;
}

}  // namespace tandem
