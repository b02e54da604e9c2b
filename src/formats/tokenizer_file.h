// A file or folder that holds a tokenizer, with or without a model -> TokenizerSpec.
#pragma once

#include <filesystem>

#include "formats/tokenizer_spec.h"

namespace tandem {

// Reads a GGUF file of any architecture, or a folder with tokenizer.json.
// Throws bad_file for anything else.
TokenizerSpec read_tokenizer(const std::filesystem::path& path);

}  // namespace tandem
