// GGUF files from which the fuzzer starts: one for each value and tensor type, alignment, family.
#pragma once

#include <string>
#include <vector>

namespace tandem::fuzz {

std::vector<std::string> gguf_seeds();

// What belongs beside the seed that is the first of two parts.
std::string second_gguf_part();

}  // namespace tandem::fuzz
