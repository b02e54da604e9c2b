// The families of models that are read, as rows: what their files are called and what their layers
// add to Llama's. A further family of this kind is a further row.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "formats/checkpoint.h"

namespace tandem {

struct Family {
  const char* name;             // config.json's model_type
  const char* architecture;     // config.json's architectures
  const char* gguf;             // GGUF's general.architecture; null: the files say llama
  const char* written_as;       // the family that a folder of this one's split tensors is
  bool qkv_bias = false;        // always
  bool attention_bias = false;  // config.json's attention_bias: q, k, v and o add one
  bool mlp_bias = false;        // config.json's mlp_bias: gate, up and down add one
  bool qk_norm = false;
  bool fused = false;             // q|k|v and gate|up are one matrix each
  bool gguf_interleaved = false;  // GGUF holds q and k in the row order of interleaved RoPE
  bool reads_window = false;      // config.json's sliding_window applies
  // It applies where use_sliding_window says so, to the layers that layer_types or
  // max_window_layers names.
  bool switched_window = false;
  int64_t window_when_unstated = 0;  // sliding_window where config.json has no such key
};

std::span<const Family> families();
// nullptr when there is none.
const Family* find_family(std::string_view name);
const Family* find_gguf_family(std::string_view architecture);
// "llama, mistral, qwen2, ...", for messages.
std::string family_names();
std::string gguf_family_names();

// The family as which a folder of these split tensors is written. Throws usage when no family's
// config.json can say what the model does.
const Family& written_family(const ModelConfig& config);

// Replaces qkv_proj and gate_up_proj by the row ranges they are made of; other tensors stay. The
// config must be valid. Throws bad_file when a fused matrix has not the rows the config wants.
void split_fused(Checkpoint& checkpoint);

}  // namespace tandem
