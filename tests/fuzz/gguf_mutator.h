// Changes GGUF files with their structure kept.
#pragma once

#include <string>

#include "formats/gguf_builder.h"
#include "fuzz/target.h"

namespace tandem::fuzz {

// Tensor types as files number them: those with a decoder, two without, an unknown one.
inline constexpr uint32_t kTensorTypes[] = {0,  1,  2,  3,  6,  7,  8,  10,  11,
                                            12, 13, 14, 20, 30, 16, 24, 1000};

// Gives the tensor the bytes that its dimensions and type ask for: the next check is reached.
void repair_data(GgufBuilder::Tensor& tensor);

// A neighbour of the file; of the tiny model where the input is too broken to be changed.
std::string mutate_gguf(const std::string& input, Random& random, const ByteMutator& bytes);

}  // namespace tandem::fuzz
