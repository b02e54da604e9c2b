// A tiny llama model as a Hugging Face folder, every file of which a test can replace.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "formats/safetensors.h"
#include "formats/validate.h"

namespace tandem {

inline constexpr const char* kTinyConfig =
    R"({"model_type":"llama","architectures":["LlamaForCausalLM"],"num_hidden_layers":1,)"
    R"("hidden_size":8,"intermediate_size":16,"num_attention_heads":2,"num_key_value_heads":1,)"
    R"("vocab_size":4,"max_position_embeddings":64,"rms_norm_eps":1e-5,"hidden_act":"silu",)"
    R"("rope_theta":10000.0,"tie_word_embeddings":true,"torch_dtype":"bfloat16"})";

inline constexpr const char* kTinyTokenizer =
    R"({"version":"1.0","added_tokens":[],"normalizer":null,)"
    R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},)"
    R"("post_processor":null,"decoder":{"type":"ByteLevel"},"model":{"type":"BPE",)"
    R"("vocab":{"a":0,"b":1,"ab":2,"c":3},"merges":["a b"]}})";

// The tensors that kTinyConfig implies, in bf16, all zero.
inline std::vector<TensorSource> tiny_tensors() {
  ModelConfig config;
  config.num_layers = config.num_kv_heads = 1;
  config.width = 8;
  config.ffn_width = 16;
  config.num_heads = 2;
  config.head_dim = 4;
  config.vocab_size = 4;
  config.tied_embedding = true;
  std::vector<TensorSource> out;
  for (const auto& [name, N, K] : expected_tensors(config)) {
    const std::string bytes(static_cast<size_t>(2 * N * K), '\0');
    const auto write = [bytes](const ByteSink& sink) { sink(std::as_bytes(std::span(bytes))); };
    out.push_back({name, "BF16", N == 1 ? std::vector{K} : std::vector{N, K}, bytes.size(), write});
  }
  return out;
}

// Everything but the weights.
inline void write_tiny_texts(const std::filesystem::path& dir) {
  write_file_atomic(dir / "config.json", kTinyConfig);
  write_file_atomic(dir / "tokenizer.json", kTinyTokenizer);
  write_file_atomic(dir / "tokenizer_config.json", "{}");
}

}  // namespace tandem
