// What every Checkpoint must be, whatever file it came from: a config in range, exactly the tensors
// of its family in their shapes, a tokenizer of the vocabulary's size. All throw bad_file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoint.h"

namespace tandem {

// Every number of the config in its range. `where` opens the message.
void validate_config(const ModelConfig& config, const std::string& where);

// `value` within [low, high], else bad_file naming it.
void check_range(const std::string& where, std::string_view what, int64_t value, int64_t low,
                 int64_t high);

// Refuses, from a header alone, weights that are larger than the memory left. Throws no_memory.
void check_fits(const std::string& where, uint64_t weight_bytes);

// The tensors of a model of any family, fused ones split; vectors have N = 1.
struct ExpectedTensor {
  std::string name;
  int64_t N = 0;
  int64_t K = 0;
};
std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config);

// The last step of every reader: splits fused matrices, builds the checkpoint's index and checks config, tensors and
// tokenizer against each other; norms must be plain and finite, separate scales finite.
void validate_checkpoint(Checkpoint& checkpoint);

}  // namespace tandem
