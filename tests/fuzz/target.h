// A fuzz target: one way for untrusted bytes into the program. The same targets run three ways:
// under libFuzzer (fuzz_NAME, `make fuzz`), over their seeds and a few thousand mutations in the
// ordinary tests (replay_test), and as the maker of the seeds (fuzz_seeds).
#pragma once

#include <functional>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"

namespace tandem::fuzz {

// Changes a piece of text as a fuzzer without knowledge of the format would: libFuzzer's own
// mutator, with its dictionary, or a few random bytes.
using ByteMutator = std::function<void(std::string&)>;

struct Target {
  const char* name;
  // Success or tandem's own Error; anything else (another exception, a sanitizer's report, a failed
  // CHECK, a broken property) ends the process.
  void (*run)(std::string_view input);
  // Small inputs from which mutation reaches every part of the format.
  std::vector<std::string> (*seeds)();
  // A neighbour of the input that keeps its structure: parse, change a field or two, write again.
  std::string (*mutate)(const std::string& input, Random& random, const ByteMutator& bytes);
};

const Target& gguf_target();
const Target& safetensors_target();
const Target& index_target();
const Target& tokenizer_target();
const Target& pieces_target();
const Target& template_target();
const Target& detokenizer_target();

std::span<const Target* const> all_targets();

// f() and nothing but an Error of tandem may come out of it.
void expect_error_or_success(const std::function<void()>& f);

// A property that must hold for every input: CHECK in a shape that reads well here.
void require(bool holds, std::string_view what);

// Numbers that sit at the edges of checks: 0, 1, powers of two and their neighbours, maxima.
uint64_t edge_number(Random& random);

// A ByteMutator for where there is no libFuzzer: a few bytes put in, taken out or replaced.
void change_bytes(std::string& text, Random& random);

template <typename Container>
auto& pick(Container& from, Random& random) {
  return from[random.below(std::size(from))];
}

// A folder in memory where there is one, for readers that want a path; gone when the program ends.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  const std::string& path() const { return path_; }
  // Truncates and rewrites the file in place.
  void write(const std::string& name, std::string_view bytes) const;

 private:
  std::string path_;
};

}  // namespace tandem::fuzz
