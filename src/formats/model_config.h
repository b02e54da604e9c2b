// The numbers that define a Llama-family decoder.
#pragma once

#include <cstdint>
#include <string>

namespace tandem {

struct ModelConfig {
  std::string family = "llama";  // the architecture name a user knows
  std::string name;              // general.name or the folder's name
  int64_t num_layers = 0;        // L
  int64_t width = 0;             // C
  int64_t num_heads = 0;         // H
  int64_t num_kv_heads = 0;      // G, divides H
  int64_t head_dim = 0;          // D
  int64_t ffn_width = 0;         // F
  int64_t vocab_size = 0;        // V
  int64_t max_context = 0;       // tokens the model was made for
  double rope_theta = 10000.0;
  double rms_eps = 1e-5;
  bool tied_embedding = false;  // lm_head is the embedding
};

}  // namespace tandem
