#include "fuzz/gguf_seeds.h"

#include <algorithm>

#include "formats/gguf.h"
#include "formats/gguf_builder.h"
#include "fuzz/gguf_mutator.h"

namespace tandem::fuzz {
namespace {

GgufBuilder with_type(uint32_t type, int64_t width) {
  GgufBuilder b = GgufBuilder::tiny();
  for (GgufBuilder::Tensor& tensor : b.tensors) {
    for (int64_t& dim : tensor.dims) dim = dim == 8 || dim == 16 ? width : dim;
    if (tensor.dims.size() == 2) tensor.type = type;
    if (tensor.name == "blk.0.attn_k.weight" || tensor.name == "blk.0.attn_v.weight") {
      tensor.dims[1] = width / 2;
    }
    repair_data(tensor);
  }
  b.set("llama.embedding_length", u32_value(static_cast<uint32_t>(width)));
  b.set("llama.feed_forward_length", u32_value(static_cast<uint32_t>(width)));
  return b;
}

GgufBuilder sentencepiece() {
  GgufBuilder b = GgufBuilder::tiny();
  b.set("tokenizer.ggml.model", text_value("llama"));
  b.set("tokenizer.ggml.tokens", texts_value({"<unk>", "<s>", "</s>", "\u2581", "a", "\u2581a"}));
  b.set("tokenizer.ggml.token_type",
        array_head(5, 6) + raw(2) + raw(3) + raw(3) + raw(1) + raw(1) + raw(1));
  b.set("tokenizer.ggml.scores", array_head(6, 6) + std::string(24, '\0'));
  b.erase("tokenizer.ggml.merges");
  return b;
}

// SentencePiece's Unigram with a character map of one rule: "b" becomes "a".
GgufBuilder unigram() {
  GgufBuilder b = sentencepiece();
  std::vector<uint32_t> units(256, 0);
  units['b'] = uint32_t{'b'} << 10 | 0x100 | 'b';
  units[0] = 0x80000000;
  std::string map = raw<uint32_t>(1024);
  for (const uint32_t unit : units) map += raw(unit);
  map += std::string("a\0", 2);
  b.set("tokenizer.ggml.model", text_value("t5"));
  b.set("tokenizer.ggml.precompiled_charsmap", array_head(0, map.size()) + map);
  return b;
}

// The first of two parts.
GgufBuilder first_part() {
  GgufBuilder b = GgufBuilder::tiny();
  b.tensors.pop_back();
  b.keys.emplace_back("split.no", raw<uint32_t>(2) + raw<uint16_t>(0));
  b.keys.emplace_back("split.count", raw<uint32_t>(2) + raw<uint16_t>(2));
  b.keys.emplace_back("split.tensors.count", i32_value(11));
  return b;
}

// The tiny model under another architecture's names.
GgufBuilder of_family(const std::string& family) {
  GgufBuilder b = GgufBuilder::tiny();
  b.set("general.architecture", text_value(family));
  for (auto& [key, value] : b.keys) {
    if (key.starts_with("llama.")) key = family + key.substr(5);
  }
  const auto vector = [&](const std::string& name, int64_t size) {
    b.tensors.push_back(
        {name, {size}, 0, std::string(static_cast<size_t>(size) * 4, '\0'), {}, {}});
  };
  if (family == "qwen2" || family == "llama") {
    vector("blk.0.attn_q.bias", 8), vector("blk.0.attn_k.bias", 4), vector("blk.0.attn_v.bias", 4);
  } else if (family == "qwen3") {
    vector("blk.0.attn_q_norm.weight", 4), vector("blk.0.attn_k_norm.weight", 4);
  } else {  // phi3: fused
    std::erase_if(b.tensors, [](const auto& t) {
      return t.name.find("attn_k.") != std::string::npos ||
             t.name.find("attn_v.") != std::string::npos ||
             t.name.find("ffn_gate") != std::string::npos;
    });
    b.tensor("blk.0.attn_q.weight").name = "blk.0.attn_qkv.weight";
    b.tensor("blk.0.attn_qkv.weight").dims = {8, 16};
    b.tensor("blk.0.ffn_up.weight").dims = {8, 32};
    for (GgufBuilder::Tensor& tensor : b.tensors) repair_data(tensor);
  }
  return b;
}

}  // namespace

std::string second_gguf_part() {
  GgufBuilder b = first_part();
  b.keys.erase(b.keys.begin(), b.keys.end() - 3);
  b.set("split.no", raw<uint32_t>(2) + raw<uint16_t>(1));
  b.tensors = {GgufBuilder::tiny().tensors.back()};
  return b.bytes();
}

std::vector<std::string> gguf_seeds() {
  std::vector<std::string> out;
  const auto add = [&](const GgufBuilder& b) { out.push_back(b.bytes()); };
  add(GgufBuilder::tiny());
  for (const uint32_t type : kTensorTypes)
    add(with_type(type, type >= 10 && type <= 14 ? 256 : 32));
  // One file a value type; arrays of each, too.
  for (uint32_t type = 0; type <= 12; ++type) {
    GgufBuilder b = GgufBuilder::tiny();
    const std::string element = type == 8 ? text("text") : std::string(8, '\1');
    const size_t size = type == 8 ? element.size() : gguf_type_bytes(static_cast<GgufType>(type));
    if (type != 9) b.set("llama.seed", raw(type) + element.substr(0, size));
    b.set("llama.seeds", array_head(type, 2) + element.substr(0, size) + element.substr(0, size));
    add(b);
  }
  for (const uint32_t alignment : {8u, 256u, 65536u}) {
    GgufBuilder b = GgufBuilder::tiny();
    b.alignment = std::min(alignment, 4096u);  // the largest one is refused for its offsets
    b.set("general.alignment", u32_value(alignment));
    add(b);
  }
  add(sentencepiece());
  add(unigram());
  add(first_part());
  for (const char* family : {"llama", "qwen2", "qwen3", "phi3"}) add(of_family(family));
  GgufBuilder scaled = GgufBuilder::tiny();
  scaled.set("llama.rope.scaling.type", text_value("linear"));
  scaled.set("llama.rope.scaling.factor", f32_value(2));
  scaled.set("tokenizer.chat_template",
             text_value("{% for m in messages %}{{ m.content }}{% endfor %}"));
  add(scaled);
  GgufBuilder vocabulary = GgufBuilder::tiny();
  vocabulary.tensors.clear();
  add(vocabulary);
  return out;
}

}  // namespace tandem::fuzz
