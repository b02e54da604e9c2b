// The tokenizer.* keys of a GGUF file -> TokenizerSpec.
#pragma once

#include <filesystem>
#include <string>

#include "formats/gguf.h"
#include "formats/tokenizer_spec.h"

namespace tandem {

// Throws bad_file for tables that are missing, of a wrong type, or of different lengths.
TokenizerSpec read_gguf_tokenizer(const GgufFile& file, const std::string& name);

// The tokenizer of a GGUF file of any architecture, with or without tensors. Throws as above.
TokenizerSpec read_gguf_vocabulary(const std::filesystem::path& path);

}  // namespace tandem
