#include "formats/gguf_write.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <span>

#include "base/error.h"
#include "formats/families.h"
#include "formats/gguf.h"
#include "formats/gguf_write_keys.h"
#include "formats/gguf_write_tokenizer.h"
#include "formats/rope_scaling.h"

namespace tandem {
namespace {

constexpr uint64_t kAlignment = 32;  // GGUF's own when no key says otherwise
constexpr uint32_t kVersion = 3;
constexpr uint32_t kQuantizationVersion = 2;  // of ggml's blocks
constexpr std::string_view kDivisorsName = "rope_freqs.weight";

// Who made the model and under which terms: kept when the source is a GGUF file.
constexpr std::string_view kKeptKeys[] = {
    "general.author",       "general.organization", "general.license",     "general.license.name",
    "general.license.link", "general.basename",     "general.finetune",    "general.version",
    "general.size_label",   "general.url",          "general.description", "general.repo_url"};

const Family& family_of(const ModelConfig& config) {
  const Family* family = find_family(config.family);
  CHECK(family != nullptr, "family {}", config.family);
  return *family;
}

// The name in general.architecture; Mistral's files say llama.
std::string architecture_of(const Family& family) {
  return family.gguf != nullptr ? family.gguf : "llama";
}

[[noreturn]] void refuse(const Checkpoint& source, const std::string& what) {
  fail(ErrorKind::usage, "{}: a GGUF file cannot describe this model to llama.cpp: {}",
       source.path.string(), what);
}

void check_describable(const Checkpoint& source) {
  const ModelConfig& c = source.config;
  const std::string architecture = architecture_of(family_of(c));
  if (c.rope_scaling == RopeScaling::dynamic) refuse(source, "its RoPE scaling is 'dynamic'");
  if (!c.full_layers.empty()) refuse(source, "only some of its layers have a window");
  if ((c.o_bias || c.mlp_bias) && architecture != "llama") {
    refuse(source,
           fmt::format("{} has a bias in architecture {}",
                       c.o_bias ? "its attention's output" : "its feed-forward", architecture));
  }
  const bool divided =
      c.rope_scaling == RopeScaling::llama3 || c.rope_scaling == RopeScaling::divisors;
  if (divided && architecture != "llama") {
    refuse(source, fmt::format("RoPE scaling '{}' (rope_freqs.weight) in architecture {}",
                               rope_scaling_name(c.rope_scaling), architecture));
  }
  const bool square_only = architecture == "qwen2" || architecture == "phi3";
  if (square_only && c.num_heads * c.head_dim != c.width) {
    refuse(source, fmt::format("{} heads of {} are not its width, {}, in architecture {}",
                               c.num_heads, c.head_dim, c.width, architecture));
  }
}

// Llama 3's scaling as the divisor of each plane's frequency.
std::vector<float> rope_divisors(const ModelConfig& c) {
  if (c.rope_scaling != RopeScaling::llama3) return c.rope_divisors;
  std::vector<float> divisors(static_cast<size_t>(c.head_dim / 2));
  for (size_t d = 0; d < divisors.size(); ++d) {
    const double exponent = static_cast<double>(d) / static_cast<double>(divisors.size());
    const double inv_freq = 1.0 / std::pow(c.rope_theta, exponent);
    divisors[d] = static_cast<float>(llama3_divisor(inv_freq, c));
  }
  return divisors;
}

void add_general(const Checkpoint& source, const std::string& architecture, uint32_t file_type,
                 GgufKeys* keys) {
  keys->add_text("general.architecture", architecture);
  keys->add_text("general.type", "model");
  if (!source.config.name.empty()) keys->add_text("general.name", source.config.name);
  for (const auto& [key, value] : source.metadata) {
    if (std::ranges::find(kKeptKeys, key) != std::end(kKeptKeys)) keys->add_text(key, value);
  }
  keys->add_u32("general.file_type", file_type);
  keys->add_u32("general.quantization_version", kQuantizationVersion);
}

void add_config(const ModelConfig& c, const std::string& architecture, GgufKeys* keys) {
  const auto u32 = [&](std::string_view key, int64_t value) {
    keys->add_u32(fmt::format("{}.{}", architecture, key), static_cast<uint32_t>(value));
  };
  const auto f32 = [&](std::string_view key, double value) {
    keys->add_f32(fmt::format("{}.{}", architecture, key), static_cast<float>(value));
  };
  u32("vocab_size", c.vocab_size);
  u32("context_length", c.max_context);
  u32("embedding_length", c.width);
  u32("block_count", c.num_layers);
  u32("feed_forward_length", c.ffn_width);
  u32("attention.head_count", c.num_heads);
  u32("attention.head_count_kv", c.num_kv_heads);
  u32("attention.key_length", c.head_dim);
  u32("attention.value_length", c.head_dim);
  f32("attention.layer_norm_rms_epsilon", c.rms_eps);
  if (c.sliding_window != 0) u32("attention.sliding_window", c.sliding_window);
  u32("rope.dimension_count", c.head_dim);
  f32("rope.freq_base", c.rope_theta);
  if (c.rope_scaling == RopeScaling::linear) {
    keys->add_text(architecture + ".rope.scaling.type", "linear");
    f32("rope.scaling.factor", c.rope_factor);
  }
}

// The bytes in front of the data: magic, counts, keys, one entry for each tensor.
std::string header(const GgufKeys& keys, const std::vector<GgufTensorSource>& tensors) {
  std::string out = "GGUF";
  const auto put = [&](auto value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  put(kVersion);
  put(static_cast<uint64_t>(tensors.size()));
  put(keys.count());
  out += keys.bytes();
  uint64_t offset = 0;
  for (const GgufTensorSource& tensor : tensors) {
    put(static_cast<uint64_t>(tensor.name.size()));
    out += tensor.name;
    put(uint32_t{tensor.N == 1 ? 1u : 2u});
    put(tensor.K);
    if (tensor.N != 1) put(tensor.N);
    put(gguf_tensor_type(tensor.encoding));
    put(offset);
    const uint64_t bytes = static_cast<uint64_t>(tensor.N) * tensor.encoding.row_bytes(tensor.K);
    offset += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  return out;
}

// Hands pieces on and fills up to the alignment after each tensor.
class AlignedSink {
 public:
  explicit AlignedSink(const ByteSink& sink) : sink_(sink) {}

  uint64_t offset() const { return offset_; }
  void put(std::span<const std::byte> piece) {
    sink_(piece);
    offset_ += piece.size();
  }
  void align() {
    constexpr std::byte kZeros[kAlignment] = {};
    put(std::span(kZeros).first((kAlignment - offset_ % kAlignment) % kAlignment));
  }

 private:
  const ByteSink& sink_;
  uint64_t offset_ = 0;
};

void write_tensors(const std::vector<GgufTensorSource>& tensors, AlignedSink* sink) {
  for (const GgufTensorSource& tensor : tensors) {
    const uint64_t begin = sink->offset();
    tensor.write([&](std::span<const std::byte> piece) { sink->put(piece); });
    const uint64_t bytes = static_cast<uint64_t>(tensor.N) * tensor.encoding.row_bytes(tensor.K);
    CHECK(sink->offset() - begin == bytes, "{}: wrote {} of {} bytes", tensor.name,
          sink->offset() - begin, bytes);
    sink->align();
  }
}

// The tensors of a fused matrix in the order of its rows; empty: not the first part of one.
std::vector<std::string> fused_parts(std::string_view name, std::string* fused) {
  constexpr std::string_view kQ = "q_proj.weight", kGate = "gate_proj.weight";
  const auto stem = [&](std::string_view suffix) {
    return std::string(name.substr(0, name.size() - suffix.size()));
  };
  if (name.ends_with(kQ)) {
    *fused = stem(kQ) + "qkv_proj.weight";
    return {stem(kQ) + "q_proj.weight", stem(kQ) + "k_proj.weight", stem(kQ) + "v_proj.weight"};
  }
  if (name.ends_with(kGate)) {
    *fused = stem(kGate) + "gate_up_proj.weight";
    return {stem(kGate) + "gate_proj.weight", stem(kGate) + "up_proj.weight"};
  }
  return {};
}

bool is_later_part(std::string_view name) {
  return name.ends_with("k_proj.weight") || name.ends_with("v_proj.weight") ||
         name.ends_with("up_proj.weight");
}

}  // namespace

int64_t GgufRows::N() const {
  return std::accumulate(parts.begin(), parts.end(), int64_t{0},
                         [](int64_t n, const NamedTensor* part) { return n + part->weight.N; });
}

std::pair<const NamedTensor*, int64_t> GgufRows::row(int64_t n) const {
  size_t part = 0;
  while (n >= parts[part]->weight.N) n -= parts[part++]->weight.N;
  if (interleaved_head == 0 || is_vector()) return {parts[part], n};
  const int64_t head = n / interleaved_head, r = n % interleaved_head;
  return {parts[part], head * interleaved_head + r / 2 + r % 2 * (interleaved_head / 2)};
}

std::vector<GgufRows> gguf_rows(const Checkpoint& source) {
  check_describable(source);
  const Family& family = family_of(source.config);
  std::vector<GgufRows> out;
  for (const NamedTensor& tensor : source.tensors) {
    GgufRows rows;
    std::string name = tensor.name;
    std::vector<std::string> parts;
    if (family.fused) {
      if (is_later_part(name)) continue;
      parts = fused_parts(tensor.name, &name);
    }
    rows.name = gguf_tensor_name(name, family);
    if (rows.name.empty()) {
      refuse(source, fmt::format("tensor {} has no name in architecture {}", quote(name),
                                 architecture_of(family)));
    }
    rows.parts = {&tensor};
    for (size_t i = 1; i < parts.size(); ++i) rows.parts.push_back(source.find(parts[i]));
    const bool turned = rows.name.find(".attn_q.") != std::string::npos ||
                        rows.name.find(".attn_k.") != std::string::npos;
    if (family.gguf_interleaved && turned) rows.interleaved_head = source.config.head_dim;
    out.push_back(std::move(rows));
  }
  return out;
}

void write_gguf(const std::filesystem::path& path, const Checkpoint& source, uint32_t file_type,
                const std::vector<std::pair<std::string, std::string>>& notes,
                const std::vector<GgufTensorSource>& tensors, const StagedPath& before_rename) {
  check_describable(source);
  std::error_code ignored;
  if (std::filesystem::exists(std::filesystem::symlink_status(path, ignored))) {
    fail(ErrorKind::usage, "{}: exists already, expected the name of a new file", path.string());
  }
  const std::string architecture = architecture_of(family_of(source.config));
  GgufKeys keys;
  add_general(source, architecture, file_type, &keys);
  for (const auto& [key, value] : notes) keys.add_text(key, value);
  add_config(source.config, architecture, &keys);
  add_gguf_tokenizer(source.tokenizer, source.path, &keys);

  std::vector<GgufTensorSource> all = tensors;
  const std::vector<float> divisors = rope_divisors(source.config);
  if (!divisors.empty()) {
    all.push_back({std::string(kDivisorsName), kF32, 1, static_cast<int64_t>(divisors.size()),
                   [&](const ByteSink& sink) { sink(std::as_bytes(std::span(divisors))); }});
  }
  const std::string head = header(keys, all);
  const auto write = [&](const ByteSink& bytes) {
    AlignedSink sink(bytes);
    sink.put(std::as_bytes(std::span(head)));
    sink.align();
    write_tensors(all, &sink);
  };
  write_file_atomic(path, write, before_rename);
}

void replace_gguf_text(const std::filesystem::path& path, std::string_view key,
                       std::string_view text) {
  const MappedFile file(path);
  const GgufFile gguf = parse_gguf(file.bytes(), path.string());
  const GgufValue* value = gguf.find(key);
  CHECK(value != nullptr && value->type == GgufType::string, "no text {}", key);
  CHECK(text.size() <= value->bytes.size(), "{}: {} bytes, {} are kept for it", key, text.size(),
        value->bytes.size());
  std::string filled(text);
  filled.resize(value->bytes.size(), ' ');
  const auto offset = value->bytes.data() - file.bytes().data();
  std::fstream out(path, std::ios::binary | std::ios::in | std::ios::out);
  out.seekp(offset);
  out.write(filled.data(), static_cast<std::streamsize>(filled.size()));
  out.flush();
  if (!out) fail(ErrorKind::system, "{}: cannot write {}", path.string(), key);
}

}  // namespace tandem
