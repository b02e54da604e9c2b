#include "formats/families.h"

#include <vector>

#include "base/error.h"

namespace tandem {
namespace {

// Split, Phi-3's tensors are Mistral's: no bias, SiLU, a window.
constexpr Family kFamilies[] = {
    {"llama", "LlamaForCausalLM", "llama", "llama", false, false, false, true, false, 0},
    {"mistral", "MistralForCausalLM", nullptr, "mistral", false, false, false, true, true, 4096},
    {"qwen2", "Qwen2ForCausalLM", "qwen2", "qwen2", true, false, false, false, false, 0},
    {"qwen3", "Qwen3ForCausalLM", "qwen3", "qwen3", false, true, false, false, false, 0},
    {"phi3", "Phi3ForCausalLM", "phi3", "mistral", false, false, true, false, true, 0},
};

struct Part {
  const char* name;
  int64_t rows;
};

// The rows of `fused` as tensors beside it, named as Hugging Face names them elsewhere.
void split(const NamedTensor& fused, std::string_view suffix, const std::vector<Part>& parts,
           const std::string& where, std::vector<NamedTensor>* out) {
  const std::string prefix = fused.name.substr(0, fused.name.size() - suffix.size());
  int64_t rows = 0;
  for (const Part& part : parts) rows += part.rows;
  if (fused.weight.N != rows) {
    fail(ErrorKind::bad_file, "{}: tensor {}: {} rows, expected {} from the config", where,
         quote(fused.name), fused.weight.N, rows);
  }
  int64_t first = 0;
  for (const Part& part : parts) {
    out->push_back({prefix + part.name + ".weight", row_range(fused.weight, first, part.rows)});
    first += part.rows;
  }
}

std::string joined(const char* Family::* field) {
  std::string names;
  for (const Family& family : kFamilies) {
    if (family.*field == nullptr) continue;
    names += (names.empty() ? "" : ", ") + std::string(family.*field);
  }
  return names;
}

}  // namespace

std::span<const Family> families() { return kFamilies; }

const Family* find_family(std::string_view name) {
  for (const Family& family : kFamilies) {
    if (name == family.name) return &family;
  }
  return nullptr;
}

const Family* find_gguf_family(std::string_view architecture) {
  for (const Family& family : kFamilies) {
    if (family.gguf != nullptr && architecture == family.gguf) return &family;
  }
  return nullptr;
}

std::string family_names() { return joined(&Family::name); }
std::string gguf_family_names() { return joined(&Family::gguf); }

const char* rope_scaling_name(RopeScaling scaling) {
  switch (scaling) {
    case RopeScaling::none:
      return "default";
    case RopeScaling::linear:
      return "linear";
    case RopeScaling::dynamic:
      return "dynamic";
    case RopeScaling::llama3:
      return "llama3";
    case RopeScaling::divisors:
      return "divisors";
  }
  return "?";
}

void split_fused(Checkpoint& checkpoint) {
  const ModelConfig& c = checkpoint.config;
  const Family* family = find_family(c.family);
  if (family == nullptr || !family->fused) return;
  const int64_t q_rows = c.num_heads * c.head_dim, kv_rows = c.num_kv_heads * c.head_dim;
  const std::string where = checkpoint.path.string();
  std::vector<NamedTensor> out;
  for (NamedTensor& tensor : checkpoint.tensors) {
    constexpr std::string_view kQkv = "qkv_proj.weight", kGateUp = "gate_up_proj.weight";
    if (tensor.name.ends_with(kQkv)) {
      split(tensor, kQkv, {{"q_proj", q_rows}, {"k_proj", kv_rows}, {"v_proj", kv_rows}}, where,
            &out);
    } else if (tensor.name.ends_with(kGateUp)) {
      split(tensor, kGateUp, {{"gate_proj", c.ffn_width}, {"up_proj", c.ffn_width}}, where, &out);
    } else {
      out.push_back(std::move(tensor));
    }
  }
  checkpoint.tensors = std::move(out);
}

}  // namespace tandem
