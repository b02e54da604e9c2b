#include <algorithm>
#include <cstring>
#include <map>
#include <tuple>

#include "base/error.h"
#include "base/version.h"
#include "compress/compress.h"
#include "compress/convert_blocks.h"
#include "compress/quantize.h"
#include "compress/row_stream.h"
#include "formats/gguf_write.h"
#include "formats/gguf_write_tokenizer.h"

namespace tandem {
namespace {

// llama.cpp's number for a file that is mostly this (LLAMA_FTYPE_MOSTLY_...).
uint32_t file_type(const Encoding& encoding) {
  constexpr std::pair<Encoding, uint32_t> kTypes[] = {
      {kF16, 1},   {kQ4_0, 2},  {kQ4_1, 3}, {kQ8_0, 7},
      {kQ4_K, 14}, {kQ6_K, 18}, {kBF16, 32}};  // 14: Q4_K_S, Q4_K but for the output matrix
  for (const auto& [known, type] : kTypes) {
    if (known == encoding) return type;
  }
  CHECK(false, "encoding {}", encoding.name());
}

// What llama.cpp makes of a matrix whose width is no multiple of the block.
Encoding fallback(const Encoding& encoding) {
  if (encoding == kQ4_K) return kQ5_0;
  if (encoding == kQ6_K) return kQ8_0;
  return kF16;
}

// Norms and biases stay f32. With q4_k the matrix that gives the logits, be it the embedding's too,
// is q6_k, as llama.cpp makes it. Of a source that is converted what is plain stays as it is.
Encoding wanted_encoding(const GgufRows& rows, const Recipe& recipe, bool tied, bool converts) {
  if (rows.is_vector()) return kF32;
  if (converts && rows.parts.front()->weight.encoding.is_plain()) return rows.parts.front()->weight.encoding;
  const bool is_output = rows.name == (tied ? "token_embd.weight" : "output.weight");
  return is_output && recipe.encoding == kQ4_K ? kQ6_K : recipe.encoding;
}

// Fallbacks that have a line together: the layers' matrices of one name.
using Fallback = std::tuple<std::string, int64_t, std::string, std::string>;

Encoding chosen_encoding(const GgufRows& rows, const Recipe& recipe, bool tied, bool converts,
                         std::map<Fallback, int>* fallbacks) {
  const Encoding wanted = wanted_encoding(rows, recipe, tied, converts);
  Encoding encoding = wanted;
  while (rows.K() % encoding.block() != 0) encoding = fallback(encoding);
  if (encoding != wanted) {
    std::string name = rows.name;
    if (name.starts_with("blk.")) name = "blk.*" + name.substr(name.find('.', 4));
    ++(*fallbacks)[{name, rows.K(), encoding.name(), wanted.name()}];
  }
  return encoding;
}

std::vector<std::string> fallback_lines(const std::map<Fallback, int>& fallbacks) {
  std::vector<std::string> lines;
  for (const auto& [fallback, count] : fallbacks) {
    const auto& [name, K, encoding, wanted] = fallback;
    lines.push_back(fmt::format("{} ({} tensor{}) in {}: its width {} is no multiple of {}'s block",
                                name, count, count == 1 ? "" : "s", encoding, K, wanted));
  }
  return lines;
}

// A bias of q or k whose elements lie as the rows of its matrix do.
void interleave(float* values, int64_t K, int64_t head) {
  std::vector<float> logical(values, values + K);
  for (int64_t k = 0; k < K; ++k) {
    const int64_t r = k % head;
    values[k] = logical[static_cast<size_t>(k - r + r / 2 + r % 2 * (head / 2))];
  }
}

// A row in its new encoding. One that has it already keeps its bytes: rounding codes once more
// would only lose.
bool make_row(const GgufRows& rows, const Encoding& encoding, int64_t n, float* scratch,
              std::byte* out) {
  const auto [part, row] = rows.row(n);
  const Weight& w = part->weight;
  const bool integers = w.encoding.packing == Packing::int4_group || w.encoding.has_zeros();
  if (integers) return convert_row(w, row, encoding, out);
  if (w.encoding == encoding && !encoding.is_plain()) {
    const size_t bytes = encoding.row_bytes(w.K);
    std::memcpy(out, w.data + static_cast<size_t>(w.stored_row(row)) * bytes, bytes);
    return true;
  }
  decode_row(w, row, scratch);
  if (!row_fits(encoding, scratch, w.K)) return false;
  if (rows.is_vector() && rows.interleaved_head != 0)
    interleave(scratch, w.K, rows.interleaved_head);
  quantize_row(encoding, scratch, w.K, out);
  return true;
}

std::vector<std::pair<std::string, std::string>> manifest(const Checkpoint& source,
                                                          const Recipe& recipe) {
  return {{"tandem.source", source.path.string()},
          {"tandem.source_format", source.format},
          {"tandem.source_hash", checkpoint_hash(source)},
          {"tandem.recipe", recipe.name},
          {"tandem.version", version()},
          {"tandem.commit", commit()}};
}

}  // namespace

CompressResult compress_to_gguf(const Checkpoint& source, const Recipe& recipe,
                                const std::filesystem::path& out_file, ThreadPool& pool,
                                const Progress& progress) {
  CHECK(recipe.container == Container::gguf, "recipe {}", recipe.name);
  const bool converts = has_four_bit_integers(source);
  converts ? check_converts(source, recipe.encoding) : check_not_compressed(source);
  const std::vector<GgufRows> plan = gguf_rows(source);
  RowStream stream(source, pool, progress);
  CompressResult result;
  std::map<Fallback, int> fallbacks;
  std::vector<GgufTensorSource> tensors;
  for (const GgufRows& rows : plan) {
    const Encoding encoding =
        chosen_encoding(rows, recipe, source.config.tied_embedding, converts, &fallbacks);
    const int64_t N = rows.N(), K = rows.K();
    const size_t row_bytes = encoding.row_bytes(K);
    const bool in_layer = rows.name.starts_with("blk.") && !rows.is_vector();
    tensors.push_back({rows.name, encoding, N, K, [&, encoding, row_bytes](const ByteSink& sink) {
                         for (const NamedTensor* part : rows.parts) source.weight(part->name, pool);
                         stream.write(
                             rows.name, rows.N(), rows.K(), row_bytes, encoding.name(),
                             [&](int64_t n, float* scratch, std::byte* out) {
                               return make_row(rows, encoding, n, scratch, out);
                             },
                             sink);
                         source.release_pages();
                       }});
    const uint64_t elements = static_cast<uint64_t>(N * K);
    const uint64_t bytes = static_cast<uint64_t>(N) * row_bytes;
    for (const NamedTensor* part : rows.parts) result.source_bytes += part->weight.total_bytes();
    result.output_bytes += bytes;
    result.num_weights += elements;
    result.num_layer_weights += in_layer ? elements : 0;
    result.layer_output_bytes += in_layer ? bytes : 0;
  }
  stream.set_total_bytes(result.output_bytes);
  write_gguf(out_file, source, file_type(recipe.encoding), manifest(source, recipe), tensors);
  result.notes = fallback_lines(fallbacks);
  if (converts) {
    result.notes.push_back(recipe.encoding == kQ4_0 ? "codes and scales are the source's"
                                                    : "codes and scales are the source's, minimums are rounded to f16");
  }
  for (std::string& note : gguf_tokenizer_notes(source.tokenizer)) {
    result.notes.push_back(std::move(note));
  }
  if (source.config.sliding_window != 0) {
    result.notes.push_back(fmt::format("llama.cpp ignores the sliding window of {} tokens",
                                       source.config.sliding_window));
  }
  return result;
}

}  // namespace tandem
