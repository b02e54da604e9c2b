// A finished layer on disk while the layers after it are still worked on: what makes a compression
// resumable, and what its files are written from in the end.
#pragma once

#include <filesystem>

#include "compress/layer_weights.h"

namespace tandem {

// One safetensors file: floats as bf16, results in full, exact. Atomic. Throws system.
void save_layer(const std::filesystem::path& file, const LayerWeights& weights);

// What of a saved layer is wanted of matrices that have a result: what the result decodes to beside
// it, the result alone, or of an integer grid only what goes with its codes.
enum class SavedParts : uint8_t { decoded, results, fits };

// What save_layer wrote. Throws bad_file.
LayerWeights load_saved_layer(const std::filesystem::path& file, ThreadPool& pool,
                              SavedParts parts = SavedParts::decoded);

// The numbers that the layer will have in its file: floats rounded to bf16, a matrix with a result
// replaced by what that decodes to. Throws bad_file naming a matrix that becomes infinite.
void settle(LayerWeights* weights, int64_t layer, LinearSet set, ThreadPool& pool);

}  // namespace tandem
