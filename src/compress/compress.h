// Checkpoint -> Checkpoint on disk, in the recipe's encoding: as a Hugging Face folder that
// transformers and vLLM read with the compressed-tensors library, or as a GGUF file that llama.cpp
// reads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/thread_pool.h"
#include "compress/recipe.h"
#include "compress/weight_error.h"
#include "formats/checkpoint.h"

namespace tandem {

struct CalibrationRows;

struct CompressProgress {
  uint64_t done_bytes = 0;  // of the tensors of the output
  uint64_t total_bytes = 0;
  std::string_view tensor;  // the one being written; valid during the call
};
using Progress = std::function<void(const CompressProgress&)>;

// Looks at a result under its temporary name before it gets its own, and may add to its manifest.
// When it throws, nothing is kept.
using Judge = std::function<void(const std::filesystem::path& staged, Json* manifest)>;

struct CompressResult {
  uint64_t source_bytes = 0;        // tensors of the source, with their scales
  uint64_t output_bytes = 0;        // tensors of the output, with their scales
  uint64_t num_weights = 0;         // elements of all tensors
  uint64_t num_layer_weights = 0;   // elements of the layers' matrices
  uint64_t layer_output_bytes = 0;  // of the layers' matrices, with their scales
  std::vector<MatrixError> errors;  // of each matrix that has its shape still
  std::vector<std::string> notes;   // what is otherwise than the recipe alone says, a line each
};

// As a Hugging Face folder: the matrices of the layers in the recipe's encoding, all else in bf16.
// Streams tensor by tensor, so that memory holds a few MiB of rows. Rows come in
// logical order: GGUF's interleaved q and k are undone. `progress` and `judge` may be empty.
//
// Before anything is written, throws usage when the source is already compressed, when a group does
// not divide a matrix's width, or when out_dir is the source or is not empty. Throws bad_file
// naming the tensor when a weight is NaN or infinite: out_dir then does not appear. Only recipes
// that merge heads use `rows` (merge_heads.h).
CompressResult compress(const Checkpoint& source, const Recipe& recipe,
                        const std::filesystem::path& out_dir, ThreadPool& pool,
                        const Progress& progress, const Judge& judge = {},
                        const CalibrationRows* rows = nullptr);

// As a GGUF file: all matrices in the recipe's encoding, norms and biases in f32. With q4_k the
// matrix that gives the logits is q6_k. Where a width is no multiple of the encoding's block,
// llama.cpp's rule holds: q5_0 for q4_k, q8_0 for q6_k, f16 for blocks of 32; `notes` tell.
// Tensors that have the encoding already are copied. Memory and errors are those of compress(), and
// those of write_gguf.
CompressResult compress_to_gguf(const Checkpoint& source, const Recipe& recipe,
                                const std::filesystem::path& out_file, ThreadPool& pool,
                                const Progress& progress, const Judge& judge = {});

// What remains when the tensors lie under their temporary name: the manifest begun by its maker
// gets sizes, errors and judgement. For the writers of this room, which then write it.
Json finish_manifest(const Checkpoint& source, Json manifest, const std::filesystem::path& staged,
                     ThreadPool& pool, const Judge& judge, CompressResult* result);

// Throws usage when a tensor is in a layout of compressed-tensors or bitsandbytes already.
void check_not_compressed(const Checkpoint& source);

}  // namespace tandem
