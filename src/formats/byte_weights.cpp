#include "formats/byte_weights.h"

#include <cmath>
#include <cstring>

#include "base/error.h"

namespace tandem {
namespace {

// A row's products of bytes, 255 x 127 at most, must sum up within 32 bits.
constexpr int64_t kMaxInt8Width = 65536;

int64_t count_of(const SafetensorsEntry& entry) {
  int64_t count = 1;
  for (const int64_t dim : entry.shape) count *= dim;
  return count;
}

void expect_shape(const SafetensorsEntry& entry, const std::vector<int64_t>& shape,
                  const std::string& where) {
  if (entry.shape == shape) return;
  fail(ErrorKind::bad_file, "{}: {} is {} [{}], expected scales [{}]", where, quote(entry.name),
       entry.dtype, fmt::join(entry.shape, ", "), fmt::join(shape, ", "));
}

float read_input_scale(const SafetensorsEntry& entry, const std::string& where) {
  const ScaleType type = scale_type_of(entry, where);
  if (count_of(entry) != 1) expect_shape(entry, {1}, where);
  const float scale = load_scale(entry.bytes.data(), type);
  if (!(scale > 0) || !std::isfinite(scale)) {
    fail(ErrorKind::bad_file, "{}: {} is {}, expected a finite number above 0", where,
         quote(entry.name), scale);
  }
  return scale;
}

// [N, groups] from one row of scales for each `rows` rows.
const std::byte* repeat_rows(const SafetensorsEntry& scale, int64_t N, int64_t groups, int64_t rows,
                             size_t step, std::vector<std::shared_ptr<const Buffer>>* memory) {
  const size_t bytes = static_cast<size_t>(groups) * step;
  auto buffer = std::make_shared<Buffer>(static_cast<size_t>(N) * bytes);
  for (int64_t n = 0; n < N; ++n) {
    std::memcpy(buffer->data() + static_cast<size_t>(n) * bytes,
                scale.bytes.data() + static_cast<size_t>(n / rows) * bytes, bytes);
  }
  memory->push_back(buffer);
  return buffer->data();
}

void expect(const Json& json, const char* key, const Json& wanted, const std::string& where) {
  const Json found = json.value(key, Json(nullptr));
  if (found == wanted) return;
  fail(ErrorKind::bad_file, "{}: '{}' is {}; only {} is supported by this version", where, key,
       quote(dump_json(found)), dump_json(wanted));
}

ByteScheme::Inputs read_inputs(const Json& json, const Json& type, bool is_block,
                               const std::string& where) {
  if (!json.is_object()) fail(ErrorKind::bad_file, "{}: not an object", where);
  expect(json, "num_bits", 8, where);
  expect(json, "type", type, where);
  expect(json, "symmetric", true, where);
  if (json.value("dynamic", Json(false)) == false) {
    expect(json, "strategy", "tensor", where);
    return ByteScheme::Inputs::fixed;
  }
  expect(json, "dynamic", true, where);
  expect(json, "strategy", is_block ? "group" : "token", where);
  if (is_block) expect(json, "group_size", kFp8Block, where);
  return ByteScheme::Inputs::dynamic;
}

}  // namespace

ByteScheme read_byte_scheme(const Json& weights, const Json* activations,
                            const std::string& where) {
  const std::string inner = where + ": weights";
  const Json type = weights.value("type", Json("int"));
  if (type != "float") expect(weights, "type", "int", inner);
  expect(weights, "num_bits", 8, inner);
  expect(weights, "symmetric", true, inner);
  if (weights.contains("dynamic")) expect(weights, "dynamic", false, inner);
  if (weights.contains("actorder")) expect(weights, "actorder", nullptr, inner);
  ByteScheme scheme;
  scheme.is_float = type == "float";
  const Json strategy = weights.value("strategy", Json(nullptr));
  if (strategy == "block") {
    scheme.scales = ByteScheme::Scales::block;
    scheme.block_rows = read_block_rows(weights.value("block_structure", Json(nullptr)), inner);
  } else if (strategy == "tensor") {
    scheme.scales = ByteScheme::Scales::tensor;
  } else {
    expect(weights, "strategy", "channel", inner);
  }
  const bool is_plain = activations == nullptr || activations->is_null();
  scheme.inputs = is_plain ? ByteScheme::Inputs::plain
                           : read_inputs(*activations, type, scheme.scales == ByteScheme::Scales::block,
                                         where + ": input_activations");
  scheme.packing(where);
  return scheme;
}

Packing ByteScheme::packing(const std::string& where) const {
  const bool is_block = scales == Scales::block;
  if (is_float && is_block && inputs == Inputs::dynamic) return Packing::fp8_block;
  if (is_float && !is_block) {
    return inputs == Inputs::plain     ? Packing::fp8_weight
           : inputs == Inputs::dynamic ? Packing::fp8_channel
                                       : Packing::fp8_static;
  }
  if (!is_float && !is_block && inputs != Inputs::plain) {
    return inputs == Inputs::dynamic ? Packing::int8_channel : Packing::int8_static;
  }
  fail(ErrorKind::bad_file,
       "{}: {} weights {} with activations {} are not supported by this version", where,
       is_float ? "FP8" : "INT8", is_block ? "in blocks" : "with a scale a row",
       inputs == Inputs::plain     ? "that are not quantized"
       : inputs == Inputs::dynamic ? "of dynamic scales"
                                   : "of a fixed scale");
}

int64_t read_block_rows(const Json& json, const std::string& where) {
  const bool is_pair = json.is_array() && json.size() == 2 && json[0].is_number_integer();
  if (is_pair && json[0] >= 1 && json[0] <= 1 << 20 && json[1] == kFp8Block) {
    return json[0].get<int64_t>();
  }
  fail(ErrorKind::bad_file, "{}: blocks of {}, expected [rows, {}]", where, quote(dump_json(json)),
       kFp8Block);
}

ScaleType scale_type_of(const SafetensorsEntry& scale, const std::string& where) {
  if (scale.dtype == "F32") return ScaleType::f32;
  if (scale.dtype == "F16") return ScaleType::f16;
  if (scale.dtype == "BF16") return ScaleType::bf16;
  fail(ErrorKind::bad_file, "{}: scales of type {}, expected F32, F16 or BF16", where, scale.dtype);
}

Weight read_byte_weight(const ByteScheme& scheme, const SafetensorsEntry& codes,
                        const SafetensorsEntry& scale, const SafetensorsEntry* input_scale,
                        const std::string& where,
                        std::vector<std::shared_ptr<const Buffer>>* memory) {
  if (codes.shape.size() != 2 || codes.shape[0] < 1 || codes.shape[1] < 1) {
    fail(ErrorKind::bad_file, "{}: not a matrix", where);
  }
  const bool is_block = scheme.scales == ByteScheme::Scales::block;
  Weight weight;
  weight.encoding = {scheme.packing(where), scale_type_of(scale, where), is_block ? kFp8Block : 0};
  weight.N = codes.shape[0];
  weight.K = codes.shape[1];
  weight.data = codes.bytes.data();
  if (!scheme.is_float && weight.K > kMaxInt8Width) {
    fail(ErrorKind::bad_file, "{}: rows of {} elements, at most {} are supported with one scale",
         where, weight.K, kMaxInt8Width);
  }
  const int64_t groups = weight.encoding.groups_per_row(weight.K);
  const size_t step = scale_bytes(weight.encoding.scale_type);
  if (is_block) {
    expect_shape(scale, {(weight.N + scheme.block_rows - 1) / scheme.block_rows, groups}, where);
    weight.scales = repeat_rows(scale, weight.N, groups, scheme.block_rows, step, memory);
  } else if (scheme.scales == ByteScheme::Scales::tensor) {
    if (count_of(scale) != 1) expect_shape(scale, {1}, where);
    weight.scales = repeat_rows(scale, weight.N, 1, weight.N, step, memory);
  } else {
    if (scale.shape != std::vector<int64_t>{weight.N}) expect_shape(scale, {weight.N, 1}, where);
    weight.scales = scale.bytes.data();
  }
  if (!weight.encoding.has_input_scale()) return weight;
  if (input_scale == nullptr) {
    fail(ErrorKind::bad_file, "{}: its input_scale is missing, which its config asks for", where);
  }
  weight.input_scale = read_input_scale(*input_scale, where);
  return weight;
}

}  // namespace tandem
