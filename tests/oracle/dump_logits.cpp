// dump_logits MODEL ISA ID... : writes the logits of every position of this sequence of token ids
// to standard output as raw little-endian floats, [ids, vocabulary]. For oracles written in Python.
#include <charconv>
#include <cstdio>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "formats/checkpoint.h"
#include "model/model.h"
#include "runtime/engine.h"

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: dump_logits MODEL ISA ID...\n");
    return 2;
  }
  try {
    std::vector<int32_t> ids;
    for (int i = 3; i < argc; ++i) {
      int32_t id = -1;
      std::from_chars(argv[i], argv[i] + std::strlen(argv[i]), id);
      ids.push_back(id);
    }
    const tandem::Checkpoint checkpoint = tandem::load_checkpoint(argv[1]);
    tandem::ThreadPool pool(2);
    const tandem::Model model(checkpoint, pool, argv[2]);
    tandem::Scorer scorer(model, tandem::KvType::f32, static_cast<int64_t>(ids.size()));
    const auto V = static_cast<size_t>(model.config().vocab_size);
    scorer.score(ids, 0, [&](int64_t, const float* logits) {
      if (std::fwrite(logits, sizeof(float), V, stdout) != V) std::exit(1);
    });
  } catch (const tandem::Error& error) {
    std::fprintf(stderr, "dump_logits: %s\n", error.what());
    return tandem::exit_code(error.kind);
  }
  return 0;
}
