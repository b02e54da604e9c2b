// The numbers that define a decoder of the Llama kind: every family is a set of these.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tandem {

// How RoPE's angles are stretched beyond the context a model was trained for.
enum class RopeScaling : uint8_t {
  none,
  linear,   // every angle divided by the factor
  dynamic,  // NTK: a larger base once a sequence is longer than the original context
  llama3,   // long waves divided by the factor, short ones kept, a ramp between
  divisors  // one divisor a frequency, as GGUF's rope_freqs.weight gives them
};
const char* rope_scaling_name(RopeScaling scaling);  // "llama3", as config.json spells it

struct ModelConfig {
  std::string family = "llama";  // a row of families.h
  std::string name;              // general.name or the folder's name
  int64_t num_layers = 0;        // L
  int64_t width = 0;             // C
  int64_t num_heads = 0;         // H
  int64_t num_kv_heads = 0;      // G, divides H
  int64_t head_dim = 0;          // D
  int64_t ffn_width = 0;         // F
  int64_t vocab_size = 0;        // V
  int64_t max_context = 0;       // tokens the model was made for, scaling included
  double rope_theta = 10000.0;
  double rms_eps = 1e-5;
  bool tied_embedding = false;  // lm_head is the embedding
  bool qkv_bias = false;        // q, k and v add a bias
  bool o_bias = false;          // so does o
  bool mlp_bias = false;        // so do gate, up and down
  bool qk_norm = false;         // an RMS norm over each head of q and of k, before RoPE
  int64_t sliding_window = 0;   // keys a token sees, itself included; 0: all
  // [L]: layers that see all keys in spite of the window; empty: none.
  std::vector<bool> full_layers;

  RopeScaling rope_scaling = RopeScaling::none;
  double rope_factor = 1.0;
  double rope_low_freq_factor = 1.0;   // llama3
  double rope_high_freq_factor = 4.0;  // llama3
  int64_t rope_original_context = 0;   // dynamic, llama3
  std::vector<float> rope_divisors;    // [D / 2], divisors only

  // Keys a token sees in layer l; 0: all.
  int64_t window(int64_t l) const {
    return !full_layers.empty() && full_layers[static_cast<size_t>(l)] ? 0 : sliding_window;
  }
};

}  // namespace tandem
