// tokenizer.json and tokenizer_config.json <-> TokenizerSpec. Read: BPE of bytes and of pieces, and
// Unigram, with the steps around them that tokenizer_pipeline.h lists; written: byte-level BPE with
// the pre-tokenizers of SmolLM, GPT-2, Llama 3 and Qwen2, and SentencePiece BPE.
#pragma once

#include <filesystem>
#include <string>

#include "formats/model_config.h"
#include "formats/tokenizer_spec.h"

namespace tandem {

// Reads both files of a folder, and chat_template.jinja when there is one. Throws bad_file naming
// whatever this version does not know.
TokenizerSpec read_tokenizer_json(const std::filesystem::path& dir);

// The texts of the two files. SentencePiece's scores become a list of merges, as Hugging Face's own
// converter has it. Throws usage or bad_file when the tokenizer cannot be told in them.
std::string tokenizer_json(const TokenizerSpec& spec);
std::string tokenizer_config_json(const TokenizerSpec& spec, const ModelConfig& config);

}  // namespace tandem
