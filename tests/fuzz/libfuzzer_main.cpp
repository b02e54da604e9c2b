// The hooks libFuzzer calls, for the target named by TANDEM_FUZZ_TARGET.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "fuzz/target.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using tandem::fuzz::Target;

const Target& target() { return tandem::fuzz::TANDEM_FUZZ_TARGET(); }

void mutate_bytes(std::string& text) {
  const size_t size = text.size(), room = size + 64;
  text.resize(room);
  text.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(text.data()), size, room));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  target().run({reinterpret_cast<const char*>(data), size});
  return 0;
}

// One change in four knows nothing of the format: it reaches what a well-formed file cannot say.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  tandem::Random random(seed);
  if (random.below(4) == 0) return LLVMFuzzerMutate(data, size, max_size);
  const std::string input(reinterpret_cast<const char*>(data), size);
  const std::string changed = target().mutate(input, random, mutate_bytes);
  if (changed.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, changed.data(), changed.size());
  return changed.size();
}
