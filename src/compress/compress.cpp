#include "compress/compress.h"

#include <algorithm>
#include <atomic>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/version.h"
#include "compress/rtn.h"

namespace tandem {
namespace {

// Elements that are decoded, rounded and handed to the writer at once: a few MiB a piece.
constexpr int64_t kPieceElements = 1 << 21;
constexpr int64_t kRowsPerTask = 8;

bool is_layer_matrix(std::string_view name) {
  return name.starts_with("model.layers.") && name.ends_with("_proj.weight");
}

// What a row of bf16 numbers becomes: its bytes in one tensor of the output.
using RowEncoder = std::function<void(const float* row, std::byte* out)>;

// The work that the output's tensors share. The sources hold it by pointer; it lives in compress().
struct Job {
  const Checkpoint& source;
  ThreadPool& pool;
  const Progress& progress;
  uint64_t total_bytes = 0;
  uint64_t done_bytes = 0;

  void advance(std::string_view tensor, size_t bytes) {
    done_bytes += bytes;
    if (progress) progress({done_bytes, total_bytes, tensor});
  }
};

// Encodes all rows of a tensor, piece by piece, into the sink.
void write_rows(Job& job, const NamedTensor& tensor, size_t row_bytes, const RowEncoder& encode,
                const ByteSink& sink) {
  const Weight& w = tensor.weight;
  const int64_t piece_rows =
      std::clamp<int64_t>(kPieceElements / std::max<int64_t>(w.K, 1), 1, w.N);
  std::vector<std::byte> piece(static_cast<size_t>(piece_rows) * row_bytes);
  std::vector<std::vector<float>> rows(static_cast<size_t>(job.pool.size()));
  for (auto& row : rows) row.resize(static_cast<size_t>(w.K));
  std::atomic<int64_t> bad_row{-1};

  for (int64_t first = 0; first < w.N; first += piece_rows) {
    const int64_t count = std::min(piece_rows, w.N - first);
    job.pool.parallel_for(count, kRowsPerTask, [&](int64_t begin, int64_t end, int thread) {
      float* row = rows[static_cast<size_t>(thread)].data();
      for (int64_t i = begin; i < end; ++i) {
        decode_row(w, first + i, row);
        if (!round_row_to_bf16(row, w.K)) {
          bad_row.store(first + i, std::memory_order_relaxed);
          return;
        }
        encode(row, piece.data() + static_cast<size_t>(i) * row_bytes);
      }
    });
    if (bad_row.load() >= 0) {
      fail(ErrorKind::bad_file, "{}: {}: row {} has a weight that is NaN or infinite in bf16",
           job.source.path.string(), quote(tensor.name), bad_row.load());
    }
    const size_t bytes = static_cast<size_t>(count) * row_bytes;
    sink(std::span<const std::byte>(piece.data(), bytes));
    job.advance(tensor.name, bytes);
  }
}

TensorSource row_source(Job& job, const NamedTensor& tensor, std::string name, const char* dtype,
                        std::vector<int64_t> shape, size_t row_bytes, RowEncoder encode) {
  return {std::move(name), dtype, std::move(shape),
          static_cast<uint64_t>(tensor.weight.N) * row_bytes,
          [&job, &tensor, row_bytes, encode = std::move(encode)](const ByteSink& sink) {
            write_rows(job, tensor, row_bytes, encode, sink);
          }};
}

TensorSource bf16_source(Job& job, const NamedTensor& tensor) {
  const int64_t N = tensor.weight.N, K = tensor.weight.K;
  std::vector<int64_t> shape = {N, K};
  if (N == 1) shape = {K};  // a norm or a bias
  return row_source(job, tensor, tensor.name, "BF16", shape, kBF16.row_bytes(K),
                    [K](const float* row, std::byte* out) { store_row_bf16(row, K, out); });
}

// The tensors of a quantized matrix. They are written far apart, since a safetensors file is
// ordered by the size of its elements; so each is made from the source anew rather than kept.
void add_quantized_sources(Job& job, const NamedTensor& tensor, const Encoding& encoding,
                           std::vector<TensorSource>& out) {
  const int64_t N = tensor.weight.N, K = tensor.weight.K;
  const int64_t groups = encoding.groups_per_row(K);
  const auto codes = [K, encoding](const float* row, std::byte* to) {
    rtn_codes(row, K, encoding, to);
  };
  if (encoding.packing == Packing::int8_channel) {
    out.push_back(row_source(job, tensor, tensor.name, "I8", {N, K}, encoding.row_bytes(K), codes));
  } else {
    const std::vector<int64_t> shape = {N, K};
    out.push_back({tensor.name + "_shape",
                   "I64",
                   {2},
                   2 * sizeof(int64_t),
                   [&job, &tensor, shape](const ByteSink& sink) {
                     sink(std::as_bytes(std::span(shape)));
                     job.advance(tensor.name, 2 * sizeof(int64_t));
                   }});
    out.push_back(row_source(job, tensor, tensor.name + "_packed", "I32", {N, K / 8},
                             encoding.row_bytes(K), codes));
  }
  out.push_back(row_source(
      job, tensor, tensor.name + "_scale", "BF16", {N, groups},
      static_cast<size_t>(groups) * scale_bytes(encoding.scale_type),
      [K, encoding](const float* row, std::byte* to) { rtn_scales(row, K, encoding, to); }));
}

void check_output(const Checkpoint& source, const std::filesystem::path& out_dir) {
  std::error_code ignored;
  if (std::filesystem::equivalent(source.path, out_dir, ignored)) {
    fail(ErrorKind::usage, "{}: is the source model, expected another folder", out_dir.string());
  }
}

void check_source(const Checkpoint& source, const Recipe& recipe) {
  for (const auto& [name, weight] : source.tensors) {
    const Packing packing = weight.encoding.packing;
    if (packing == Packing::int8_channel || packing == Packing::int4_group) {
      fail(ErrorKind::usage, "{}: {} is already {}, expected a model that is not compressed",
           source.path.string(), quote(name), weight.encoding.name());
    }
    if (recipe.group != 0 && is_layer_matrix(name) && weight.K % recipe.group != 0) {
      fail(ErrorKind::usage, "{}: width {} is not a multiple of group {}", quote(name), weight.K,
           recipe.group);
    }
  }
}

std::string manifest_json(const Checkpoint& source, const Recipe& recipe) {
  Json manifest = {{"source", source.path.string()},
                   {"source_format", source.format},
                   {"source_hash", checkpoint_hash(source)},
                   {"recipe", recipe.name}};
  if (recipe.group != 0) manifest["group"] = recipe.group;
  manifest["version"] = version();
  manifest["commit"] = commit();
  return dump_json(manifest, 2) + "\n";
}

}  // namespace

CompressResult compress(const Checkpoint& source, const Recipe& recipe,
                        const std::filesystem::path& out_dir, ThreadPool& pool,
                        const Progress& progress) {
  check_output(source, out_dir);
  check_source(source, recipe);

  Job job{source, pool, progress};
  CompressResult result;
  std::vector<TensorSource> sources;
  for (const NamedTensor& tensor : source.tensors) {
    const bool in_layer = is_layer_matrix(tensor.name);
    const size_t first = sources.size();
    if (in_layer && recipe.quantizes()) {
      add_quantized_sources(job, tensor, recipe.encoding, sources);
    } else {
      sources.push_back(bf16_source(job, tensor));
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
  job.total_bytes = result.output_bytes;
  write_hf_folder(out_dir, source.config, source.tokenizer, sources,
                  quantization_config_json(recipe), manifest_json(source, recipe));
  return result;
}

}  // namespace tandem
