#include "formats/families.h"

#include <vector>

#include "base/error.h"

namespace tandem {
namespace {

// Split, Phi-3's tensors are Mistral's: no bias, SiLU, a window.
constexpr Family kFamilies[] = {
    {.name = "llama",
     .architecture = "LlamaForCausalLM",
     .gguf = "llama",
     .written_as = "llama",
     .attention_bias = true,
     .mlp_bias = true,
     .gguf_interleaved = true},
    {.name = "mistral",
     .architecture = "MistralForCausalLM",
     .gguf = nullptr,
     .written_as = "mistral",
     .gguf_interleaved = true,
     .reads_window = true,
     .window_when_unstated = 4096},
    {.name = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .gguf = "qwen2",
     .written_as = "qwen2",
     .qkv_bias = true,
     .switched_window = true,
     .window_when_unstated = 4096},
    {.name = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .gguf = "qwen3",
     .written_as = "qwen3",
     .attention_bias = true,
     .qk_norm = true,
     .switched_window = true,
     .window_when_unstated = 4096},
    {.name = "phi3",
     .architecture = "Phi3ForCausalLM",
     .gguf = "phi3",
     .written_as = "mistral",
     .fused = true,
     .reads_window = true},
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

const Family& written_family(const ModelConfig& c) {
  const Family* family = find_family(c.family);
  CHECK(family != nullptr, "family {}", c.family);
  family = find_family(family->written_as);
  const bool qkv_only = c.qkv_bias && !c.o_bias;
  // A GGUF file says llama of whatever differs from it by such keys and tensors alone.
  if (std::string_view(family->name) == "llama" && qkv_only) family = find_family("qwen2");
  if (std::string_view(family->name) == "llama" && c.sliding_window != 0) {
    family = find_family("mistral");
  }
  const bool window_fits = c.sliding_window == 0 || family->switched_window ||
                           (family->reads_window && c.full_layers.empty());
  const bool biases_fit = (c.qkv_bias == c.o_bias || family->qkv_bias) &&
                          (!c.o_bias || family->attention_bias) &&
                          (!c.mlp_bias || family->mlp_bias) && (c.qkv_bias || !family->qkv_bias);
  if (!window_fits || !biases_fit) {
    fail(ErrorKind::usage,
         "{}: a {} with {}{}{}{} is no model that a Hugging Face folder can describe",
         c.name.empty() ? c.family : c.name, family->name, c.qkv_bias ? "biases of q, k, v; " : "",
         c.o_bias ? "a bias of o; " : "", c.mlp_bias ? "biases of the feed-forward; " : "",
         c.sliding_window != 0 ? "a sliding window" : "no sliding window");
  }
  return *family;
}

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
