#include "compress/compress.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <span>
#include <vector>

#include "base/error.h"
#include "compress/float_sources.h"
#include "compress/manifest.h"
#include "compress/merge_heads.h"
#include "compress/nearest_of_table.h"
#include "compress/off_grid.h"
#include "compress/prune.h"
#include "compress/quantize.h"
#include "compress/row_stream.h"
#include "compress/rtn.h"
#include "compress/rtn_grid.h"

namespace tandem {
namespace {

bool is_layer_matrix(std::string_view name) {
  return name.starts_with("model.layers.") && name.ends_with("_proj.weight");
}

void multiply_row(const ChannelFactors& factors, int64_t n, float* row, int64_t K) {
  if (factors.is_identity()) return;
  const double whole_row = factors.rows.empty() ? 1 : factors.rows[static_cast<size_t>(n)];
  for (int64_t k = 0; k < K; ++k) {
    const double column = factors.columns.empty() ? 1 : factors.columns[static_cast<size_t>(k)];
    row[k] = static_cast<float>(static_cast<double>(row[k]) * whole_row * column);
  }
}

// A tensor in plain numbers: in the recipe's, where they are what it writes, else in bf16.
TensorSource plain_source(RowStream& stream, const NamedTensor& tensor, const ModelConfig& config,
                          const Recipe& recipe) {
  const int64_t N = tensor.weight.N, K = tensor.weight.K;
  const Encoding encoding = recipe.encoding == kF32 ? kF32 : kBF16;
  const ChannelFactors factors =
      recipe.off_grid ? off_grid_factors(config, tensor.name, recipe.seed) : ChannelFactors();
  std::vector<int64_t> shape = {N, K};
  if (N == 1) shape = {K};  // a norm or a bias
  const size_t row_bytes = encoding.row_bytes(K);
  const auto write = [&stream, &tensor, encoding, row_bytes, factors](const ByteSink& sink) {
    const Weight& w = tensor.weight;
    const auto make_row = [&](int64_t n, float* row, std::byte* out) {
      decode_row(w, n, row);
      multiply_row(factors, n, row, w.K);
      if (!row_fits(encoding, row, w.K)) return false;
      quantize_row(encoding, row, w.K, out);
      return true;
    };
    stream.write(tensor.name, w.N, w.K, row_bytes, encoding.name(), make_row, sink);
  };
  return {tensor.name, encoding == kF32 ? "F32" : "BF16", shape,
          static_cast<uint64_t>(N) * row_bytes, write};
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
  const auto make = [&source, &tensor, grid = recipe.grid, &pool](bool) {
    return std::make_shared<const GridMatrix>(rounded_matrix(source, tensor, grid, pool));
  };
  for (TensorSource& made : grid_tensors(recipe.layout, module, shape, make, pool)) {
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

Json groups_json(const std::vector<LayerMerge>& layers) {
  Json groups = Json::array();
  for (const LayerMerge& layer : layers) groups.push_back(layer.order);
  return groups;
}

Json calibration_json(const CalibrationRows& rows) {
  return {{"source", rows.source}, {"source_hash", rows.source_hash},
          {"rows", rows.num()},    {"length", rows.length},
          {"seed", rows.seed},     {"rows_hash", rows.hash}};
}

// With what a recipe that prunes or merges heads has left.
Json full_manifest(const Checkpoint& source, const Recipe& recipe,
                   const std::vector<LayerMerge>& heads, const CalibrationRows* rows) {
  Json manifest = make_manifest(source, recipe);
  if (recipe.pruning != Pruning::none) manifest["stored"] = "2:4 as dense bf16 with zeros";
  if (recipe.pruning == Pruning::random || recipe.aligns_heads) manifest["seed"] = recipe.seed;
  if (!heads.empty()) {
    manifest["kv_heads"] = recipe.kv_heads;
    manifest["merged_heads"] = groups_json(heads);
    manifest["output_refit"] = rows != nullptr;
  }
  if (rows != nullptr) manifest["calibration"] = calibration_json(*rows);
  return manifest;
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

Json finish_manifest(const Checkpoint& source, Json manifest, const std::filesystem::path& staged,
                     ThreadPool& pool, const Judge& judge, CompressResult* result) {
  manifest["source_bytes"] = result->source_bytes;
  manifest["output_bytes"] = result->output_bytes;
  const Checkpoint made = load_checkpoint(staged);
  result->errors = matrix_errors(source, made, pool);
  auto error = result->errors.begin();
  Json& matrices = manifest["matrices"] = Json::array();
  for (const auto& [name, weight] : made.tensors) {
    if (weight.N == 1) continue;
    Json entry = {{"name", name},
                  {"encoding", weight.encoding.name()},
                  {"shape", {weight.N, weight.K}}};
    if (error != result->errors.end() && error->name == name) {
      // Four digits tell all there is; infinity, of zeros that became something, is no JSON.
      const double value = error++->relative_error;
      if (std::isfinite(value)) entry["error"] = std::stod(fmt::format("{:.4g}", value));
    }
    matrices.push_back(std::move(entry));
  }
  if (judge) judge(staged, &manifest);
  return manifest;
}

namespace {

// The source's matrices in the recipe's encoding.
CompressResult write_folder(const Checkpoint& source, const Recipe& recipe,
                            const std::vector<LayerMerge>& heads, const CalibrationRows* rows,
                            const std::filesystem::path& out_dir, ThreadPool& pool,
                            const Progress& progress, const Judge& judge) {
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
    } else if (in_layer && recipe.pruning != Pruning::none) {
      sources.push_back(pruned_source(stream, tensor, recipe));
    } else {
      sources.push_back(plain_source(stream, tensor, source.config, recipe));
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
                  quantization_config_json(recipe), "",
                  from_folder ? source.path : std::filesystem::path(),
                  [&](const std::filesystem::path& staged) {
                    write_folder_manifest(
                        staged, finish_manifest(source, full_manifest(source, recipe, heads, rows),
                                                staged, pool, judge, &result));
                  });
  return result;
}

std::string merge_note(const std::vector<LayerMerge>& layers, int64_t before, int64_t after) {
  double sum = 0;
  size_t worst = 0;
  for (size_t l = 0; l < layers.size(); ++l) {
    sum += layers[l].kept_power;
    if (layers[l].kept_power < layers[worst].kept_power) worst = l;
  }
  return fmt::format(
      "{} KV heads became {}: the means keep {:.2f} % of the power of keys and values, {:.2f} % in "
      "layer {}; measure what that costs",
      before, after, 100 * sum / static_cast<double>(layers.size()),
      100 * layers[worst].kept_power, worst);
}

}  // namespace

CompressResult compress(const Checkpoint& source, const Recipe& recipe,
                        const std::filesystem::path& out_dir, ThreadPool& pool,
                        const Progress& progress, const Judge& judge,
                        const CalibrationRows* rows) {
  CHECK(recipe.container == Container::hf_folder, "recipe {}", recipe.name);
  check_output(source, out_dir);
  check_not_compressed(source);
  check_groups(source, recipe);
  if (recipe.kv_heads == 0) {
    return write_folder(source, recipe, {}, nullptr, out_dir, pool, progress, judge);
  }
  const HeadMerge options{recipe.kv_heads, recipe.aligns_heads, recipe.seed};
  const MergedHeads merged = merge_kv_heads(source, options, rows, pool);
  CompressResult result =
      write_folder(merged.checkpoint, recipe, merged.layers, rows, out_dir, pool, progress, judge);
  result.notes.push_back(
      merge_note(merged.layers, source.config.num_kv_heads, options.num_kv_heads));
  return result;
}

}  // namespace tandem
