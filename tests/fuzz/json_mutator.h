// Neighbours of a JSON text: one node changed, the rest kept, written again.
#pragma once

#include <string>
#include <vector>

#include "fuzz/target.h"

namespace tandem::fuzz {

// `words` are strings that mean something to the reader: they replace values and keys.
std::string mutate_json(const std::string& text, Random& random, const ByteMutator& bytes,
                        const std::vector<std::string>& words);

}  // namespace tandem::fuzz
