#include "compress/float_sources.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <span>

#include "base/error.h"
#include "compress/double_quantization.h"
#include "compress/fp8_grid.h"
#include "compress/nearest_of_table.h"
#include "tensor/sparse.h"

namespace tandem {
namespace {

template <typename T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

// The name of a matrix without ".weight".
std::string module_of(const NamedTensor& tensor) {
  return tensor.name.substr(0, tensor.name.rfind('.'));
}

std::vector<float> all_absmax(RowStream& stream, const NamedTensor& tensor, const Encoding& encoding) {
  const int64_t N = tensor.weight.N, K = tensor.weight.K, groups = encoding.groups_per_row(K);
  std::vector<float> absmax(static_cast<size_t>(N * groups));
  stream.visit(tensor, 1, [&](int64_t n, const float* row) {
    table_absmax(row, K, encoding, reinterpret_cast<std::byte*>(&absmax[static_cast<size_t>(n * groups)]));
  });
  return absmax;
}

std::string type_of(const Encoding& encoding) {
  return encoding.packing == Packing::nf4   ? "nf4"
         : encoding.packing == Packing::fp4 ? "fp4"
                                            : "codebook";
}

// A number as Python's json writes it.
std::string python_number(float value) {
  std::string text = fmt::format("{}", static_cast<double>(value));
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

// absmax as bytes; gives the offset.
float add_nested_sources(RowStream& stream, const NamedTensor& tensor, const Encoding& encoding,
                         std::vector<TensorSource>& out) {
  const int64_t count = tensor.weight.N * encoding.groups_per_row(tensor.weight.K);
  const int64_t blocks = (count + kNestedBlock - 1) / kNestedBlock;
  const float offset = absmax_offset(all_absmax(stream, tensor, encoding));
  const auto nested = [&stream, &tensor, encoding, offset] {
    return quantize_absmax(all_absmax(stream, tensor, encoding), offset);
  };
  out.push_back(whole_source(stream, tensor, tensor.name + ".absmax", "U8", {count},
                             static_cast<uint64_t>(count), [=] { return bytes_of(nested().codes); }));
  out.push_back(whole_source(stream, tensor, tensor.name + ".nested_absmax", "F32", {blocks},
                             static_cast<uint64_t>(blocks) * sizeof(float),
                             [=] { return bytes_of(nested().absmax); }));
  std::string map(sizeof(float) * dynamic_map().size(), '\0');
  std::memcpy(map.data(), dynamic_map().data(), map.size());
  out.push_back(bytes_source(stream, tensor, tensor.name + ".nested_quant_map", "F32", 256, std::move(map)));
  return offset;
}

}  // namespace

TensorSource bytes_source(RowStream& stream, const NamedTensor& tensor, std::string name,
                          const char* dtype, int64_t count, std::string bytes) {
  const uint64_t size_bytes = bytes.size();
  return {std::move(name), dtype, {count}, size_bytes,
          [&stream, &tensor, bytes = std::move(bytes)](const ByteSink& sink) {
            sink(std::as_bytes(std::span(bytes)));
            stream.advance(tensor.name, bytes.size());
          }};
}

void add_table_sources(RowStream& stream, const NamedTensor& tensor, const Recipe& recipe,
                       std::vector<TensorSource>& out) {
  const Encoding encoding = recipe.encoding;
  const int64_t N = tensor.weight.N, K = tensor.weight.K, groups = encoding.groups_per_row(K);
  const bool is_codebook = encoding.packing == Packing::codebook;
  const float* values = is_codebook ? recipe.codebook.data() : lookup_values(encoding.packing);
  // The library flattens a matrix before it cuts it into blocks: these do not straddle rows.
  out.push_back(row_source(stream, tensor, tensor.name, "U8", {N * K / 2, 1}, encoding.row_bytes(K),
                           [K, encoding, values](int64_t, const float* row, std::byte* to) {
                             table_codes(row, K, encoding, values, to);
                           }));
  std::string state = fmt::format(
      R"({{"quant_type": "{}", "blocksize": {}, "dtype": "bfloat16", "shape": [{}, {}])",
      type_of(encoding), encoding.group, N, K);
  if (recipe.is_nested) {
    const float offset = add_nested_sources(stream, tensor, encoding, out);
    state += fmt::format(R"(, "nested_blocksize": {}, "nested_dtype": "float32", "nested_offset": {})",
                         kNestedBlock, python_number(offset));
  } else {
    out.push_back(row_source(stream, tensor, tensor.name + ".absmax", "F32", {N * groups},
                             static_cast<size_t>(groups) * sizeof(float),
                             [K, encoding](int64_t, const float* row, std::byte* to) {
                               table_absmax(row, K, encoding, to);
                             }));
  }
  state += "}";
  std::string map(16 * sizeof(float), '\0');
  std::memcpy(map.data(), values, map.size());
  out.push_back(bytes_source(stream, tensor, tensor.name + ".quant_map", "F32", 16, std::move(map)));
  const auto length = static_cast<int64_t>(state.size());
  out.push_back(bytes_source(stream, tensor,
                             tensor.name + ".quant_state.bitsandbytes__" + type_of(encoding), "U8",
                             length, std::move(state)));
}

void add_fp8_sources(RowStream& stream, const NamedTensor& tensor, const Recipe& recipe,
                     std::vector<TensorSource>& out) {
  const int64_t N = tensor.weight.N, K = tensor.weight.K;
  const bool is_tensor = recipe.fp8_scales == Fp8Scales::tensor;
  const bool is_deepseek = recipe.fp8_scales == Fp8Scales::deepseek;
  const Fp8Grid empty(N, K, is_tensor ? N : kFp8Block, is_tensor ? K : kFp8Block,
                      recipe.encoding.scale_type);
  // Read through once before the first of the two tensors is written.
  auto lazy = std::make_shared<std::optional<Fp8Grid>>();
  const auto grid = [&stream, &tensor, empty, lazy]() -> const Fp8Grid& {
    if (lazy->has_value()) return **lazy;
    Fp8Grid full = empty;
    stream.visit(tensor, full.rows, [&](int64_t n, const float* row) { full.add_row(n, row); });
    return lazy->emplace(std::move(full));
  };
  const int64_t row_blocks = empty.row_blocks();
  const size_t scale_row = empty.scale_row_bytes();
  const auto make_scales = [grid, row_blocks, scale_row] {
    std::vector<std::byte> bytes(static_cast<size_t>(row_blocks) * scale_row);
    for (int64_t b = 0; b < row_blocks; ++b) {
      grid().store_scales(b, bytes.data() + static_cast<size_t>(b) * scale_row);
    }
    return bytes;
  };
  std::vector<int64_t> shape = {row_blocks, empty.column_blocks()};
  if (is_tensor) shape = {1};
  out.push_back(whole_source(stream, tensor, tensor.name + (is_deepseek ? "_scale_inv" : "_scale"),
                             is_deepseek ? "F32" : "BF16", shape,
                             static_cast<uint64_t>(row_blocks) * scale_row, make_scales));
  // Scales have the wider elements, so they come first in the file and make the grid.
  out.push_back(row_source(stream, tensor, tensor.name, "F8_E4M3", {N, K}, static_cast<size_t>(K),
                           [lazy](int64_t n, const float* row, std::byte* to) {
                             lazy->value().store_codes(n, row, to);
                           }));
}

void add_masked_sources(RowStream& stream, const NamedTensor& tensor, const Encoding& encoding,
                        std::vector<TensorSource>& out) {
  const int64_t N = tensor.weight.N, K = tensor.weight.K;
  const std::string module = module_of(tensor);
  const std::vector<int64_t> dims = {N, K};
  out.push_back(whole_source(stream, tensor, module + ".shape", "I64", {2, 1}, 2 * sizeof(int64_t),
                             [dims] { return bytes_of(dims); }));
  const auto pruned = [encoding](const float* row, int64_t width) {
    std::vector<std::byte> bytes(encoding.row_bytes(width));
    prune_row(encoding, {row, static_cast<size_t>(width)}, bytes.data());
    return bytes;
  };
  out.push_back(row_source(stream, tensor, module + ".compressed", "BF16", {N, K / 2},
                           static_cast<size_t>(K),
                           [pruned, K](int64_t, const float* row, std::byte* to) {
                             std::memcpy(to, pruned(row, K).data(), static_cast<size_t>(K));
                           }));
  out.push_back(row_source(stream, tensor, module + ".bitmask", "U8", {N, K / 8},
                           static_cast<size_t>(K / 8),
                           [pruned, K](int64_t, const float* row, std::byte* to) {
                             const std::vector<std::byte> bytes = pruned(row, K);
                             mask_of_places(bytes.data() + K, K, to);
                           }));
}

}  // namespace tandem
