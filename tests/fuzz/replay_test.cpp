// Every fuzz target over its seeds and over a fixed sequence of mutations of them: what `make fuzz`
// does for minutes with a guided fuzzer, in seconds and with any compiler.
#include <gtest/gtest.h>

#include "fuzz/target.h"

namespace tandem::fuzz {
namespace {

constexpr int kMutationsPerTarget = 3000;

class Replay : public testing::TestWithParam<const Target*> {};

TEST_P(Replay, SeedsAndTheirNeighbours) {
  const Target& target = *GetParam();
  std::vector<std::string> pool = target.seeds();
  ASSERT_FALSE(pool.empty());
  for (const std::string& seed : pool) target.run(seed);
  Random random(1);
  const ByteMutator bytes = [&](std::string& text) { change_bytes(text, random); };
  for (int i = 0; i < kMutationsPerTarget; ++i) {
    std::string input = pick(pool, random);
    for (uint64_t n = random.below(4) + 1; n > 0; --n) input = target.mutate(input, random, bytes);
    target.run(input);
    // Some become the start of further ones, so that changes pile up.
    if (i % 16 == 0 && input.size() < 100'000) pool.push_back(std::move(input));
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Replay, testing::ValuesIn(all_targets()),
                         [](const auto& test) { return std::string(test.param->name); });

}  // namespace
}  // namespace tandem::fuzz
