// Checkpoint -> Checkpoint on disk: every matrix of the layers in the recipe's encoding, everything
// else in bf16, as a Hugging Face folder that transformers and vLLM read with the
// compressed-tensors library.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string_view>

#include "base/thread_pool.h"
#include "compress/recipe.h"
#include "formats/checkpoint.h"

namespace tandem {

struct CompressProgress {
  uint64_t done_bytes = 0;  // of the tensors of the output
  uint64_t total_bytes = 0;
  std::string_view tensor;  // the one being written; valid during the call
};
using Progress = std::function<void(const CompressProgress&)>;

struct CompressResult {
  uint64_t source_bytes = 0;        // tensors of the source, with their scales
  uint64_t output_bytes = 0;        // tensors of the output, with their scales
  uint64_t num_weights = 0;         // elements of all tensors
  uint64_t num_layer_weights = 0;   // elements of the layers' matrices
  uint64_t layer_output_bytes = 0;  // of the layers' matrices, with their scales
};

// Streams tensor by tensor, so that memory holds a few MiB of rows. Rows come in
// logical order: GGUF's interleaved q and k are undone. `progress` may be empty.
//
// Before anything is written, throws usage when the source is already compressed, when a group does
// not divide a matrix's width, or when out_dir is the source or is not empty. Throws bad_file
// naming the tensor when a weight is NaN or infinite: out_dir then does not appear.
CompressResult compress(const Checkpoint& source, const Recipe& recipe,
                        const std::filesystem::path& out_dir, ThreadPool& pool,
                        const Progress& progress);

}  // namespace tandem
