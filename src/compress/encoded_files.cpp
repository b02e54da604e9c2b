#include "compress/encoded_files.h"

#include <span>

#include "base/error.h"

namespace tandem {
namespace {

bool is_block(const EncodedShape& shape) { return shape.encoding.packing == Packing::fp8_block; }

}  // namespace

std::vector<TensorSource> encoded_tensors(const std::string& module, const EncodedShape& s,
                                          const std::function<EncodedMatrix()>& make) {
  CHECK(s.encoding.packing == Packing::fp8_channel || is_block(s), "no writer for {}: {}", module,
        s.encoding.name());
  const int64_t groups = s.encoding.groups_per_row(s.K);
  const int64_t scale_rows = (s.N + s.scale_rows - 1) / s.scale_rows;
  const size_t row_bytes = static_cast<size_t>(groups) * scale_bytes(s.encoding.scale_type);
  std::vector<TensorSource> out;
  out.push_back({module + ".weight", "F8_E4M3", {s.N, s.K}, static_cast<uint64_t>(s.N * s.K),
                 [make](const ByteSink& sink) { sink(make().data); }});
  std::vector<int64_t> shape = {scale_rows, groups};
  if (s.is_one_scale()) shape = {1};
  out.push_back({module + ".weight_scale", "BF16", shape,
                 static_cast<uint64_t>(scale_rows) * row_bytes, [=](const ByteSink& sink) {
                   const EncodedMatrix matrix = make();
                   for (int64_t n = 0; n < s.N; n += s.scale_rows) {
                     sink(std::span(matrix.scales).subspan(static_cast<size_t>(n) * row_bytes,
                                                           row_bytes));
                   }
                 }});
  return out;
}

Json encoded_scheme_json(const EncodedShape& shape, const std::string& activations,
                         const std::vector<std::string>& targets) {
  Json weights = {{"num_bits", 8},         {"type", "float"},
                  {"symmetric", true},     {"strategy", shape.is_one_scale() ? "tensor" : "channel"},
                  {"group_size", nullptr}, {"dynamic", false}};
  Json inputs = nullptr;
  if (activations != "none") {
    const bool dynamic = activations == "dynamic";
    inputs = {{"num_bits", 8},         {"type", "float"},
              {"symmetric", true},     {"strategy", dynamic ? "token" : "tensor"},
              {"group_size", nullptr}, {"dynamic", dynamic}};
  }
  if (is_block(shape)) {
    CHECK(activations == "dynamic", "activations {}", activations);
    weights["strategy"] = "block";
    weights["block_structure"] = {kFp8Block, kFp8Block};
    inputs["strategy"] = "group";
    inputs["group_size"] = kFp8Block;
  }
  return {{"targets", targets},
          {"format", "float-quantized"},
          {"weights", weights},
          {"input_activations", inputs},
          {"output_activations", nullptr}};
}

}  // namespace tandem
