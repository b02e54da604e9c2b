// A file or folder that holds a tokenizer, with or without a model -> TokenizerSpec.
#pragma once

#include <filesystem>

#include "formats/tokenizer_spec.h"

namespace tandem {

// tokenizer.json of a folder, or tokenizer.model when that is absent. Throws bad_file.
TokenizerSpec read_folder_tokenizer(const std::filesystem::path& dir);

// Reads a GGUF file of any architecture, or a folder.
// Throws bad_file for anything else.
TokenizerSpec read_tokenizer(const std::filesystem::path& path);

}  // namespace tandem
