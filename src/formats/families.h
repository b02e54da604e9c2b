// The families of models that are read, as rows: what their files are called and what their layers
// add to Llama's. A further family of this kind is a further row.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "formats/checkpoint.h"

namespace tandem {

struct Family {
  const char* name;          // config.json's model_type
  const char* architecture;  // config.json's architectures
  const char* gguf;          // GGUF's general.architecture; null: the files say llama
  const char* written_as;    // the family that a folder of this one's split tensors is
  bool qkv_bias;
  bool qk_norm;
  bool fused;                    // q|k|v and gate|up are one matrix each
  bool gguf_interleaved;         // GGUF holds q and k in the row order of interleaved RoPE
  bool reads_window;             // config.json's sliding_window applies
  int64_t window_when_unstated;  // sliding_window where config.json has no such key
};

std::span<const Family> families();
// nullptr when there is none.
const Family* find_family(std::string_view name);
const Family* find_gguf_family(std::string_view architecture);
// "llama, mistral, qwen2, ...", for messages.
std::string family_names();
std::string gguf_family_names();

// Replaces qkv_proj and gate_up_proj by the row ranges they are made of; other tensors stay. The
// config must be valid. Throws bad_file when a fused matrix has not the rows the config wants.
void split_fused(Checkpoint& checkpoint);

}  // namespace tandem
