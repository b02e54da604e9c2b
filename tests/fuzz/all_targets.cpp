// Apart from the rest, so that a libFuzzer program links its own target alone.
#include "fuzz/target.h"

namespace tandem::fuzz {

std::span<const Target* const> all_targets() {
  static const Target* const kTargets[] = {
      &gguf_target(),   &safetensors_target(), &index_target(),      &tokenizer_target(),
      &pieces_target(), &template_target(),    &detokenizer_target()};
  return kTargets;
}

}  // namespace tandem::fuzz
