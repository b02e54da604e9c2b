// A model's shape -> a Checkpoint of that shape with random weights, in memory: for speed, memory
// and energy, which do not depend on what a model has learned.
#pragma once

#include <filesystem>
#include <functional>
#include <string_view>

#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "tensor/random_rows.h"

namespace tandem {

// One of data/models: a JSON file of the shape's numbers. Throws bad_file.
ModelConfig read_model_shape(const std::filesystem::path& path);

// "bf16", "f16", "int8", "int4-g32", "int4-g64", "int4-g128", "q4_0", "q4_1", "q8_0", "fp8",
// "fp8-weight-only", "nf4", "fp4", "q4_k", "q6_k", "bf16-2:4", "f16-2:4", "int4-g32-2:4",
// "int4-g64-2:4", "int4-g128-2:4", "llm-int8", "int8-2:4", "fp8-2:4". Throws usage.
Encoding encoding_of(std::string_view name);

// Memory other than the host's, and who makes rows there: 0 ... N - 1, as make_random_row does.
struct RowMaker {
  DeviceMemory* memory = nullptr;
  std::function<void(const RandomRows& rows, int64_t N, std::byte* data, std::byte* scales)> make;
};

// Layers' matrices in `layers`, the output matrix in `lm_head`, an embedding of its own in bf16.
// Weights are about normal with a deviation of 1 / sqrt(K), norms are 1. Tensors are views, at
// places of their own, into one sheet of rows for each encoding and K: row n of
// a sheet is make_random_row's. With a maker, the matrices lie in its memory, which must outlive
// the checkpoint. No tokenizer. Throws usage when K has not the encoding's blocks.
Checkpoint random_checkpoint(const ModelConfig& config, const Encoding& layers,
                             const Encoding& lm_head, uint64_t seed, ThreadPool& pool,
                             const RowMaker* maker = nullptr);

// What goes with such a model where one is to be written: a token a byte, the others by number but
// for "a", "b" and "ab", since a tokenizer.json without a merge is read as damaged. Throws usage for a
// vocabulary of fewer than 260.
TokenizerSpec byte_tokenizer(int64_t vocab_size);

}  // namespace tandem
