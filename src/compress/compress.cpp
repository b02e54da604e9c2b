#include "compress/compress.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/version.h"
#include "compress/float_sources.h"
#include "compress/row_stream.h"
#include "compress/rtn.h"
#include "compress/rtn_grid.h"

namespace tandem {
namespace {

bool is_layer_matrix(std::string_view name) {
  return name.starts_with("model.layers.") && name.ends_with("_proj.weight");
}

TensorSource bf16_source(RowStream& stream, const NamedTensor& tensor) {
  const int64_t N = tensor.weight.N, K = tensor.weight.K;
  std::vector<int64_t> shape = {N, K};
  if (N == 1) shape = {K};  // a norm or a bias
  return row_source(stream, tensor, tensor.name, "BF16", shape, kBF16.row_bytes(K),
                    [K](int64_t, const float* row, std::byte* out) { store_row_bf16(row, K, out); });
}

// The tensors of LLM.int8(), as bitsandbytes names them.
void add_llm_int8_sources(RowStream& stream, const NamedTensor& tensor,
                          std::vector<TensorSource>& out) {
  const int64_t N = tensor.weight.N, K = tensor.weight.K;
  const std::string module = tensor.name.substr(0, tensor.name.rfind('.'));
  out.push_back(row_source(
      stream, tensor, tensor.name, "I8", {N, K}, static_cast<size_t>(K),
      [K](int64_t, const float* row, std::byte* to) { llm_int8_codes(row, K, to); }));
  out.push_back(row_source(stream, tensor, module + ".SCB", "F32", {N}, sizeof(float),
                           [K](int64_t, const float* row, std::byte* to) {
                             const float magnitude = llm_int8_magnitude(row, K);
                             std::memcpy(to, &magnitude, sizeof magnitude);
                           }));
  TensorSource format =
      bytes_source(stream, tensor, module + ".weight_format", "U8", 1, std::string(1, '\0'));
  format.shape.clear();  // a scalar
  out.push_back(std::move(format));
}

// The tensors of a quantized matrix. They are written far apart, since a safetensors file is
// ordered by the size of its elements; so each is made from the source anew rather than kept.
void add_quantized_sources(RowStream& stream, const NamedTensor& tensor, const Recipe& recipe,
                           std::vector<TensorSource>& out) {
  const Encoding& encoding = recipe.encoding;
  if (encoding.is_lookup()) return add_table_sources(stream, tensor, recipe, out);
  if (encoding.is_sparse()) return add_masked_sources(stream, tensor, encoding, out);
  if (recipe.fp8_scales != Fp8Scales::row) return add_fp8_sources(stream, tensor, recipe, out);
  if (encoding.packing == Packing::llm_int8) return add_llm_int8_sources(stream, tensor, out);
  const int64_t N = tensor.weight.N, K = tensor.weight.K;
  const int64_t groups = encoding.groups_per_row(K);
  const auto codes = [K, encoding](int64_t, const float* row, std::byte* to) {
    rtn_codes(row, K, encoding, to);
  };
  if (encoding.bits() == 8) {
    const char* dtype = encoding.is_fp8() ? "F8_E4M3" : "I8";
    out.push_back(
        row_source(stream, tensor, tensor.name, dtype, {N, K}, encoding.row_bytes(K), codes));
  } else {
    const std::vector<int64_t> shape = {N, K};
    out.push_back({tensor.name + "_shape",
                   "I64",
                   {2},
                   2 * sizeof(int64_t),
                   [&stream, &tensor, shape](const ByteSink& sink) {
                     sink(std::as_bytes(std::span(shape)));
                     stream.advance(tensor.name, 2 * sizeof(int64_t));
                   }});
    out.push_back(row_source(stream, tensor, tensor.name + "_packed", "I32", {N, K / 8},
                             encoding.row_bytes(K), codes));
  }
  out.push_back(row_source(
      stream, tensor, tensor.name + "_scale", "BF16", {N, groups},
      static_cast<size_t>(groups) * scale_bytes(encoding.scale_type),
      [K, encoding](int64_t, const float* row, std::byte* to) { rtn_scales(row, K, encoding, to); }));
}

// A layer's matrix rounded to the grid, from the bf16 form of its weights. Throws bad_file when they
// are not finite in it or in the grid's type.
GridMatrix rounded_matrix(const Checkpoint& source, const NamedTensor& tensor, const IntegerGrid& grid,
                          ThreadPool& pool) {
  Matrix w(tensor.weight.N, tensor.weight.K);
  std::atomic<int64_t> bad_row{-1};
  pool.parallel_for(w.N, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) {
      decode_row(tensor.weight, n, w.row(n));
      bool finite = round_row_to_bf16(w.row(n), w.K);
      for (int64_t k = 0; k < w.K; ++k) {
        w.row(n)[k] = round_to_type(w.row(n)[k], grid.scale_type);
        finite = finite && std::isfinite(w.row(n)[k]);
      }
      if (!finite) bad_row.store(n, std::memory_order_relaxed);
    }
  });
  if (bad_row >= 0) {
    fail(ErrorKind::bad_file, "{}: {}: row {} has a weight that is NaN or infinite in {}", source.path.string(),
         quote(tensor.name), bad_row.load(), grid.scale_type == ScaleType::f16 ? "f16" : "bf16");
  }
  return round_to_grid(w, grid, pool);
}

void add_grid_sources(RowStream& stream, const Checkpoint& source, const NamedTensor& tensor,
                      const GridRecipe& recipe, ThreadPool& pool, std::vector<TensorSource>& out) {
  const std::string module = tensor.name.substr(0, tensor.name.rfind('.'));
  const GridShape shape{recipe.grid, tensor.weight.N, tensor.weight.K};
  const auto make = [&source, &tensor, grid = recipe.grid, &pool] {
    return rounded_matrix(source, tensor, grid, pool);
  };
  for (TensorSource& made : grid_tensors(recipe.layout, module, shape, make)) {
    made.write = [&stream, &tensor, bytes = made.size_bytes, write = std::move(made.write)](const ByteSink& sink) {
      write(sink);
      stream.advance(tensor.name, bytes);
    };
    out.push_back(std::move(made));
  }
}

void check_output(const Checkpoint& source, const std::filesystem::path& out_dir) {
  std::error_code ignored;
  if (std::filesystem::equivalent(source.path, out_dir, ignored)) {
    fail(ErrorKind::usage, "{}: is the source model, expected another folder", out_dir.string());
  }
}

void check_groups(const Checkpoint& source, const Recipe& recipe) {
  for (const auto& [name, weight] : source.tensors) {
    if (recipe.group != 0 && is_layer_matrix(name) && weight.K % recipe.group != 0) {
      fail(ErrorKind::usage, "{}: width {} is not a multiple of group {}", quote(name), weight.K,
           recipe.group);
    }
    if (recipe.encoding.is_sparse() && is_layer_matrix(name) && weight.K % 8 != 0) {
      fail(ErrorKind::usage, "{}: width {} is not a multiple of 8, as 2:4 with a mask wants it",
           quote(name), weight.K);
    }
  }
}

std::string manifest_json(const Checkpoint& source, const Recipe& recipe) {
  Json manifest = {{"source", source.path.string()},
                   {"source_format", source.format},
                   {"source_hash", checkpoint_hash(source)},
                   {"recipe", recipe.name}};
  if (recipe.group != 0) manifest["group"] = recipe.group;
  if (recipe.integers) {
    manifest["layout"] = grid_layout_name(recipe.integers->layout);
    manifest["symmetric"] = recipe.integers->grid.symmetric;
  }
  manifest["version"] = version();
  manifest["commit"] = commit();
  return dump_json(manifest, 2) + "\n";
}

}  // namespace

void check_not_compressed(const Checkpoint& source) {
  for (const auto& [name, weight] : source.tensors) {
    const Encoding& encoding = weight.encoding;
    if (encoding.packing == Packing::int8_channel || encoding.packing == Packing::int4_group ||
        encoding.packing == Packing::llm_int8 || encoding.packing == Packing::int8_static ||
        encoding.is_fp8() || encoding.is_lookup() || encoding.is_sparse() || encoding.has_zeros()) {
      fail(ErrorKind::usage, "{}: {} is already {}, expected a model that is not compressed",
           source.path.string(), quote(name), weight.encoding.name());
    }
  }
}

CompressResult compress(const Checkpoint& source, const Recipe& recipe,
                        const std::filesystem::path& out_dir, ThreadPool& pool,
                        const Progress& progress) {
  CHECK(recipe.container == Container::hf_folder, "recipe {}", recipe.name);
  check_output(source, out_dir);
  check_not_compressed(source);
  check_groups(source, recipe);

  RowStream stream(source, pool, progress);
  CompressResult result;
  std::vector<TensorSource> sources;
  for (const NamedTensor& tensor : source.tensors) {
    const bool in_layer = is_layer_matrix(tensor.name);
    const size_t first = sources.size();
    if (in_layer && recipe.integers) {
      add_grid_sources(stream, source, tensor, *recipe.integers, pool, sources);
    } else if (in_layer && recipe.quantizes()) {
      add_quantized_sources(stream, tensor, recipe, sources);
    } else {
      sources.push_back(bf16_source(stream, tensor));
    }
    const uint64_t elements = static_cast<uint64_t>(tensor.weight.N * tensor.weight.K);
    uint64_t bytes = 0;
    for (size_t i = first; i < sources.size(); ++i) bytes += sources[i].size_bytes;
    result.source_bytes += tensor.weight.total_bytes();
    result.output_bytes += bytes;
    result.num_weights += elements;
    result.num_layer_weights += in_layer ? elements : 0;
    result.layer_output_bytes += in_layer ? bytes : 0;
  }
  stream.set_total_bytes(result.output_bytes);
  const bool from_folder = std::filesystem::is_directory(source.path);
  write_hf_folder(out_dir, source.config, source.tokenizer, sources,
                  quantization_config_json(recipe), manifest_json(source, recipe),
                  from_folder ? source.path : std::filesystem::path());
  return result;
}

}  // namespace tandem
