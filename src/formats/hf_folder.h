// A Hugging Face folder (config.json, model.safetensors or its shards, tokenizer.json, tokenizer_config.json) ->
// Checkpoint. Writing one is write_hf_folder in checkpoint.h.
#pragma once

#include <filesystem>

#include "formats/checkpoint.h"

namespace tandem {

// The file in which compression leaves its manifest.
inline constexpr const char* kManifestFile = "tandem_manifest.json";

// Reads a model of a family that families.h lists, plain or in compressed-tensors' integer formats. Throws bad_file,
// no_memory when the weights cannot fit.
Checkpoint read_hf_folder(const std::filesystem::path& dir);

}  // namespace tandem
