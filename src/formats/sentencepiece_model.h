// tokenizer.model, the SentencePiece library's own file -> TokenizerSpec.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "formats/tokenizer_spec.h"

namespace tandem {

// The tables of a model of type BPE or Unigram (sentencepiece_model.proto). Throws bad_file on
// bytes that are no such model, and on what this version does not know.
TokenizerSpec parse_sentencepiece_model(std::string_view bytes, const std::string& where);

// The tables of a file alone. Throws as parse_sentencepiece_model does, and when it cannot be read.
TokenizerSpec read_sentencepiece_model(const std::filesystem::path& path);

// tokenizer.model of a folder with what tokenizer_config.json and added_tokens.json say besides, if
// they are there: a BOS in front unless they say otherwise, and a space in front of the text only,
// not behind special tokens, unless `legacy` is true. Throws bad_file.
TokenizerSpec read_sentencepiece_folder(const std::filesystem::path& dir);

}  // namespace tandem
