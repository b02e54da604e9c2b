// A tiny llama model as GGUF bytes, every field of which a test can spoil.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace tandem {

template <typename T>
std::string raw(T value) {
  std::string out(sizeof value, '\0');
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}

// GGUF's value types, with the type's id in front.
inline std::string u32_value(uint32_t v) { return raw<uint32_t>(4) + raw(v); }
inline std::string i32_value(int32_t v) { return raw<uint32_t>(5) + raw(v); }
inline std::string f32_value(float v) { return raw<uint32_t>(6) + raw(v); }
inline std::string bool_value(uint8_t v) { return raw<uint32_t>(7) + raw(v); }
inline std::string u64_value(uint64_t v) { return raw<uint32_t>(10) + raw(v); }
inline std::string text(const std::string& s) { return raw<uint64_t>(s.size()) + s; }
inline std::string text_value(const std::string& s) { return raw<uint32_t>(8) + text(s); }
inline std::string array_head(uint32_t element, uint64_t count) {
  return raw<uint32_t>(9) + raw(element) + raw(count);
}
inline std::string texts_value(const std::vector<std::string>& strings) {
  std::string out = array_head(8, strings.size());
  for (const auto& s : strings) out += text(s);
  return out;
}

struct GgufBuilder {
  struct Tensor {
    std::string name;
    std::vector<int64_t> dims;  // dims[0] is contiguous
    uint32_t type = 0;          // F32
    std::string data;
    std::optional<uint64_t> offset;  // instead of the right one
    std::optional<uint32_t> num_dims;
  };

  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t alignment = 32;  // of the data; general.alignment is a key like any other
  std::optional<uint64_t> num_tensors;
  std::optional<uint64_t> num_keys;
  std::vector<std::pair<std::string, std::string>> keys;
  std::vector<Tensor> tensors;

  // One layer; width 8, two heads of 4 and one KV head, feed-forward 16, six tokens.
  static GgufBuilder tiny() {
    GgufBuilder b;
    b.keys = {{"general.architecture", text_value("llama")},
              {"general.name", text_value("tiny")},
              {"llama.block_count", u32_value(1)},
              {"llama.context_length", u32_value(64)},
              {"llama.embedding_length", u32_value(8)},
              {"llama.feed_forward_length", u32_value(16)},
              {"llama.attention.head_count", u32_value(2)},
              {"llama.attention.head_count_kv", u32_value(1)},
              {"llama.attention.layer_norm_rms_epsilon", f32_value(1e-5f)},
              {"llama.rope.freq_base", f32_value(10000.0f)},
              {"tokenizer.ggml.model", text_value("gpt2")},
              {"tokenizer.ggml.pre", text_value("smollm")},
              {"tokenizer.ggml.tokens", texts_value({"<|end|>", "a", "b", "c", "ab", "abc"})},
              {"tokenizer.ggml.token_type",
               array_head(5, 6) + raw(3) + raw(1) + raw(1) + raw(1) + raw(1) + raw(1)},
              {"tokenizer.ggml.merges", texts_value({"a b", "ab c"})},
              {"tokenizer.ggml.eos_token_id", u32_value(0)}};
    const auto add = [&](const std::string& name, int64_t K, int64_t N) {
      std::string data;
      for (int64_t i = 0; i < K * N; ++i) data += raw(0.25f * static_cast<float>(i % 7) - 0.5f);
      b.tensors.push_back({name, N == 1 ? std::vector{K} : std::vector{K, N}, 0, data, {}, {}});
    };
    add("token_embd.weight", 8, 6);
    add("blk.0.attn_norm.weight", 8, 1);
    add("blk.0.attn_q.weight", 8, 8);
    add("blk.0.attn_k.weight", 8, 4);
    add("blk.0.attn_v.weight", 8, 4);
    add("blk.0.attn_output.weight", 8, 8);
    add("blk.0.ffn_norm.weight", 8, 1);
    add("blk.0.ffn_gate.weight", 8, 16);
    add("blk.0.ffn_up.weight", 8, 16);
    add("blk.0.ffn_down.weight", 16, 8);
    add("output_norm.weight", 8, 1);
    return b;
  }

  void set(const std::string& key, const std::string& value) {
    for (auto& [name, old] : keys) {
      if (name == key) {
        old = value;
        return;
      }
    }
    keys.emplace_back(key, value);
  }
  void erase(const std::string& key) {
    std::erase_if(keys, [&](const auto& entry) { return entry.first == key; });
  }
  Tensor& tensor(const std::string& name) {
    for (auto& t : tensors) {
      if (t.name == name) return t;
    }
    std::abort();
  }

  std::string bytes() const {
    std::string out = magic + raw(version) + raw(num_tensors.value_or(tensors.size())) +
                      raw(num_keys.value_or(keys.size()));
    for (const auto& [key, value] : keys) out += text(key) + value;
    uint64_t offset = 0;
    for (const auto& t : tensors) {
      out += text(t.name) + raw(t.num_dims.value_or(static_cast<uint32_t>(t.dims.size())));
      for (const int64_t dim : t.dims) out += raw(dim);
      out += raw(t.type) + raw(t.offset.value_or(offset));
      offset += (t.data.size() + alignment - 1) / alignment * alignment;
    }
    const auto pad = [&] { out.resize((out.size() + alignment - 1) / alignment * alignment); };
    pad();
    for (const auto& t : tensors) {
      out += t.data;
      pad();
    }
    return out;
  }
};

}  // namespace tandem
