// dump_tensor MODEL NAME... : writes the named tensors, in Hugging Face's names and row order, to
// standard output as raw little-endian floats, one after another. The other half of gguf_decode.py.
#include <cstdio>
#include <vector>

#include "base/error.h"
#include "formats/checkpoint.h"

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: dump_tensor MODEL NAME...\n");
    return 2;
  }
  try {
    const tandem::Checkpoint checkpoint = tandem::load_checkpoint(argv[1]);
    for (int i = 2; i < argc; ++i) {
      const tandem::Weight& weight = checkpoint.weight(argv[i]);
      std::vector<float> row(static_cast<size_t>(weight.K));
      for (int64_t n = 0; n < weight.N; ++n) {
        decode_row(weight, n, row.data());
        if (std::fwrite(row.data(), sizeof(float), row.size(), stdout) != row.size()) return 1;
      }
    }
  } catch (const tandem::Error& error) {
    std::fprintf(stderr, "dump_tensor: %s\n", error.what());
    return tandem::exit_code(error.kind);
  }
  return 0;
}
