// Developer program of the tokenizer oracles: encode_lines [--markup] FILE reads a tokenizer (a GGUF
// file, or a folder of tokenizer files), then texts on stdin, each as a
// uint32 of its bytes and the bytes, and writes for each an int32 count and the int32 ids (little
// endian). With --markup special tokens are recognised. The time of the tokenizer's construction and
// of all encoding goes to stderr.
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "base/clock.h"
#include "formats/tokenizer_file.h"
#include "text/tokenizer.h"

int main(int argc, char** argv) {
  const bool markup = argc == 3 && std::string_view(argv[1]) == "--markup";
  if (argc != (markup ? 3 : 2)) {
    std::fputs("usage: encode_lines [--markup] FILE < texts > ids\n", stderr);
    return 2;
  }
  try {
    const tandem::TokenizerSpec spec = tandem::read_tokenizer(argv[argc - 1]);
    const int64_t construction_start_ns = tandem::now_ns();
    const tandem::Tokenizer tokenizer(spec);
    const double construction_seconds = tandem::seconds_since(construction_start_ns);

    double encode_seconds = 0;
    uint64_t num_bytes = 0;
    uint32_t length;
    std::string text;
    while (std::fread(&length, sizeof length, 1, stdin) == 1) {
      text.resize(length);
      if (std::fread(text.data(), 1, length, stdin) != length) return 1;
      const int64_t start_ns = tandem::now_ns();
      const std::vector<int32_t> ids = tokenizer.encode(std::vector<tandem::TextSpan>{{text, markup}});
      encode_seconds += tandem::seconds_since(start_ns);
      num_bytes += length;
      const auto count = static_cast<int32_t>(ids.size());
      std::fwrite(&count, sizeof count, 1, stdout);
      std::fwrite(ids.data(), sizeof(int32_t), ids.size(), stdout);
    }
    std::fprintf(stderr, "construction %.1f ms, encoding %.2f MB/s\n", construction_seconds * 1e3,
                 static_cast<double>(num_bytes) / encode_seconds / 1e6);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "encode_lines: %s\n", error.what());
    return 3;
  }
  return 0;
}
