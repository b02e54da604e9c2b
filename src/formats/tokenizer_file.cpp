#include "formats/tokenizer_file.h"

#include "formats/gguf_tokenizer.h"
#include "formats/sentencepiece_model.h"
#include "formats/tokenizer_json.h"

namespace tandem {

TokenizerSpec read_folder_tokenizer(const std::filesystem::path& dir) {
  const bool has_json = std::filesystem::exists(dir / "tokenizer.json");
  if (!has_json && std::filesystem::exists(dir / "tokenizer.model")) {
    return read_sentencepiece_folder(dir);
  }
  return read_tokenizer_json(dir);
}

TokenizerSpec read_tokenizer(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return read_folder_tokenizer(path);
  return read_gguf_vocabulary(path);
}

}  // namespace tandem
