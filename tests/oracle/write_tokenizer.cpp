// Developer program of tokenizer_write_oracle.py: write_tokenizer FILE DIR reads a tokenizer (a GGUF
// file, or a folder of tokenizer files) and writes tokenizer.json and tokenizer_config.json into DIR.
#include <cstdio>
#include <filesystem>

#include "base/file.h"
#include "formats/tokenizer_file.h"
#include "formats/tokenizer_json.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: write_tokenizer FILE DIR\n", stderr);
    return 2;
  }
  try {
    const std::filesystem::path dir = argv[2];
    const tandem::TokenizerSpec spec = tandem::read_tokenizer(argv[1]);
    tandem::write_file_atomic(dir / "tokenizer.json", tandem::tokenizer_json(spec));
    tandem::ModelConfig config;
    config.max_context = 2048;
    tandem::write_file_atomic(dir / "tokenizer_config.json",
                              tandem::tokenizer_config_json(spec, config));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "write_tokenizer: %s\n", error.what());
    return 3;
  }
  return 0;
}
