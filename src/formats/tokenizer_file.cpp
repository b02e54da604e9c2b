#include "formats/tokenizer_file.h"

#include "formats/gguf_tokenizer.h"
#include "formats/tokenizer_json.h"

namespace tandem {

TokenizerSpec read_tokenizer(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return read_tokenizer_json(path);
  return read_gguf_vocabulary(path);
}

}  // namespace tandem
