// A tokenizer.json of pieces -> the scores that SentencePiece, and llama.cpp, go by.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "formats/tokenizer_spec.h"

namespace tandem {

// tokenizer.model of the folder that `spec` was read from; nothing when `source` is no folder, has
// none, or `spec` is that model already. Throws bad_file.
std::optional<TokenizerSpec> read_model_beside(const TokenizerSpec& spec,
                                               const std::filesystem::path& source);

// By id; 0 for tokens that the model has not. Throws bad_file when its pieces are not the
// spec's, added tokens aside, or when a BPE's merges are not in the order of the scores.
std::vector<float> scores_of_model(const TokenizerSpec& spec, const TokenizerSpec& model,
                                   const std::filesystem::path& source);

// Scores of a piece_bpe by which the same merges come first: 0 for the piece that the first merge
// makes, -1 for the next. Merging by scores takes any two pieces that make a third, so all such
// pairs must be among the merges, and those of one piece next to each other, as they are in what is
// made of a SentencePiece model. Throws usage naming the piece when they are not.
std::vector<float> scores_of_merges(const TokenizerSpec& spec, const std::filesystem::path& source);

}  // namespace tandem
