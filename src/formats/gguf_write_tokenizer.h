// A tokenizer's tables -> the keys tokenizer.* of a GGUF file, in the terms that llama.cpp has:
// byte-level BPE under the name of its pre-tokenizer ("gpt2"), SentencePiece BPE by scores
// ("llama"), Unigram under SentencePiece's own rules ("t5").
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "formats/gguf_write_keys.h"
#include "formats/tokenizer_spec.h"

namespace tandem {

// `source` is the file or folder that the tables are from. A tokenizer.json of pieces takes scores
// and rules from the tokenizer.model beside it; without one, the scores of BPE follow from the
// order of its merges. Throws usage when the tokenizer does something that GGUF has no words for or
// that llama.cpp would do otherwise, bad_file when tokenizer.model cannot be read or is another's.
void add_gguf_tokenizer(const TokenizerSpec& spec, const std::filesystem::path& source,
                        GgufKeys* keys);

// Where llama.cpp's ids of some texts will not be the source's, a line each.
std::vector<std::string> gguf_tokenizer_notes(const TokenizerSpec& spec);

}  // namespace tandem
