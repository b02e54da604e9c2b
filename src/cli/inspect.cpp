// tandem inspect: what a model file holds, without computing with it.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>

#include "base/cpu.h"
#include "base/error.h"
#include "base/json.h"
#include "cli/model_path.h"
#include "cli/verbs.h"
#include "formats/checkpoint.h"
#include "kernels/table.h"
#include "model/footprint.h"

namespace tandem {
namespace {

struct Options {
  std::string path;
  bool json = false;
  bool tensors = false;        // list every tensor
  bool chat_template = false;  // print the chat template
};

struct EncodingTotal {
  int64_t count = 0;
  uint64_t bytes = 0;
  std::string kernel;  // that runs its matrices here; empty: it has none
};

// The kernel of this processor for a packing; no test of a GPU, which need not be there.
std::string kernel_name(Packing packing) {
  for (const LinearKernel& row : linear_kernels()) {
    if (best_isa() == row.isa && row.packing == packing) return row.name;
  }
  return "no kernel on this processor";
}

struct Totals {
  uint64_t parameters = 0;
  uint64_t bytes = 0;
  std::map<std::string, EncodingTotal> by_encoding;
};

Totals totals_of(const Checkpoint& checkpoint) {
  Totals totals;
  for (const auto& [name, weight] : checkpoint.tensors) {
    totals.parameters += static_cast<uint64_t>(weight.N) * static_cast<uint64_t>(weight.K);
    totals.bytes += weight.total_bytes();
    EncodingTotal& total = totals.by_encoding[weight.encoding.name()];
    total.count += 1;
    total.bytes += weight.total_bytes();
    if (weight.N > 1) total.kernel = kernel_name(weight.encoding.packing);
  }
  return totals;
}

int64_t kv_token_bytes(const ModelConfig& config, KvType type) {
  return KvLayout{type, config.num_layers, config.num_kv_heads, config.head_dim}.token_bytes();
}

std::vector<std::pair<std::string, int64_t>> kv_sizes(const ModelConfig& config) {
  return {{"f32", kv_token_bytes(config, KvType::f32)},
          {"bf16", kv_token_bytes(config, KvType::bf16)},
          {"int8", kv_token_bytes(config, KvType::int8)},
          {"fp8", kv_token_bytes(config, KvType::fp8)},
          {"int4", kv_token_bytes(config, KvType::int4)}};
}

// What one sequence of `context` tokens needs: the packed weights and its cache, without the
// buffers of a step.
struct Need {
  const char* kv;
  int64_t context;
  uint64_t bytes;
};

// For each KV type a user may choose: short, long and longest contexts.
std::vector<Need> memory_needs(const Checkpoint& checkpoint, uint64_t resident_bytes) {
  const ModelConfig& config = checkpoint.config;
  std::vector<int64_t> contexts;
  for (const int64_t context : {1024, 8192}) {
    if (context < config.max_context) contexts.push_back(context);
  }
  contexts.push_back(config.max_context);
  std::vector<Need> needs;
  for (const KvType type : {KvType::bf16, KvType::int8}) {
    for (const int64_t context : contexts) {
      needs.push_back(
          {kv_type_name(type), context, resident_bytes + kv_bytes(config, type, context)});
    }
  }
  return needs;
}

// Norms are vectors: their shape is printed without the row count of 1.
std::vector<int64_t> shape_of(const Weight& weight) {
  if (weight.N == 1) return {weight.K};
  return {weight.N, weight.K};
}

const char* kind_name(TokenizerKind kind) {
  switch (kind) {
    case TokenizerKind::byte_bpe: return "byte-level BPE";
    case TokenizerKind::unigram: return "SentencePiece Unigram";
    default: return "SentencePiece BPE";
  }
}

int64_t num_control(const TokenizerSpec& spec) {
  return std::count(spec.types.begin(), spec.types.end(), TokenType::control);
}

// Lines stay lines; everything else that could steer a terminal is escaped.
std::string printable_lines(const std::string& text) {
  std::string out;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = quote(text.substr(begin, end - begin), 4 * text.size());
    out.append(line, 1, line.size() - 2);
    if (end < text.size()) out += '\n';
    begin = end + 1;
  }
  return out;
}

// In powers of ten; --json has the bytes.
std::string megabytes(uint64_t bytes) {
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) * 1e-6);
}

std::string special_tokens(const TokenizerSpec& spec) {
  std::string out;
  const std::pair<const char*, int32_t> ids[] = {
      {"bos", spec.bos_id}, {"eos", spec.eos_id}, {"pad", spec.pad_id}, {"unk", spec.unk_id}};
  for (const auto& [name, id] : ids) {
    if (id < 0) continue;
    out += fmt::format("{}{} {} {}", out.empty() ? "" : ", ", name, id,
                       quote(spec.tokens[static_cast<size_t>(id)], 40));
  }
  return out.empty() ? "none" : out;
}

void print_text(const Checkpoint& checkpoint, const Options& options) {
  const ModelConfig& c = checkpoint.config;
  const TokenizerSpec& spec = checkpoint.tokenizer;
  const Totals totals = totals_of(checkpoint);
  fmt::print("{}\n", printable_lines(checkpoint.path.string()));
  fmt::print("  format      {}, {} bytes of weight files\n", checkpoint.format,
             checkpoint.file_bytes);
  fmt::print("  model       {} {}\n", c.family, quote(c.name));
  fmt::print("  shape       {} layers, width {}, {} heads and {} KV heads of {}, feed-forward {}\n",
             c.num_layers, c.width, c.num_heads, c.num_kv_heads, c.head_dim, c.ffn_width);
  fmt::print("  context     {} tokens, RoPE base {}, RMS epsilon {}\n", c.max_context, c.rope_theta,
             c.rms_eps);
  fmt::print("  vocabulary  {} tokens, output matrix {}\n", c.vocab_size,
             c.tied_embedding ? "tied to the embedding" : "of its own");
  fmt::print("  parameters  {} in {} tensors\n", totals.parameters, checkpoint.tensors.size());
  for (const auto& [name, total] : totals.by_encoding) {
    fmt::print("    {:<18} {:>5} tensors {:>15} bytes{}{}\n", name, total.count, total.bytes,
               total.kernel.empty() ? "" : ", ", total.kernel);
  }
  fmt::print("  tokenizer   {} {}, {} merges, {} control tokens, BOS {}\n", kind_name(spec.kind),
             quote(spec.pre_tokenizer), spec.merges.size(), num_control(spec),
             spec.add_bos ? "put in front" : "not put in front");
  fmt::print("              {}\n", special_tokens(spec));
  fmt::print("  chat        {}\n", spec.chat_template.empty()
                                       ? "no template"
                                       : fmt::format("template of {} bytes (--template prints it)",
                                                     spec.chat_template.size()));
  fmt::print("  footprint   weights {} ({:.2f} bits a parameter)\n", megabytes(totals.bytes),
             8.0 * static_cast<double>(totals.bytes) / static_cast<double>(totals.parameters));
  const uint64_t resident_bytes = footprint(checkpoint).resident_bytes;
  fmt::print("              in memory {}\n", megabytes(resident_bytes));
  for (const auto& [type, bytes] : kv_sizes(c)) {
    fmt::print("              KV {:<5} {} bytes a token\n", type, bytes);
  }
  const uint64_t available = available_memory_bytes();
  for (const Need& need : memory_needs(checkpoint, resident_bytes)) {
    fmt::print("              {} tokens with KV {}: {}, {}\n", need.context, need.kv,
               megabytes(need.bytes), need.bytes <= available ? "fits" : "does not fit");
  }
  fmt::print("              this machine has {} available now\n", megabytes(available));
  fmt::print("  metadata\n");
  for (const auto& [key, value] : checkpoint.metadata) {
    fmt::print("    {} = {}\n", printable_lines(key), quote(value));
  }
  for (const auto& warning : checkpoint.warnings) fmt::print("  warning: {}\n", warning);
  if (!options.tensors) return;
  fmt::print("  tensors\n");
  for (const auto& [name, weight] : checkpoint.tensors) {
    fmt::print("    {:<48} {:<18} [{}]\n", name, weight.encoding.name(),
               fmt::join(shape_of(weight), ", "));
  }
}

Json config_json(const ModelConfig& c) {
  return {{"family", c.family},
          {"name", c.name},
          {"num_layers", c.num_layers},
          {"width", c.width},
          {"num_heads", c.num_heads},
          {"num_kv_heads", c.num_kv_heads},
          {"head_dim", c.head_dim},
          {"ffn_width", c.ffn_width},
          {"vocab_size", c.vocab_size},
          {"max_context", c.max_context},
          {"rope_theta", c.rope_theta},
          {"rms_eps", c.rms_eps},
          {"tied_embedding", c.tied_embedding}};
}

Json tokenizer_json(const TokenizerSpec& spec, bool with_template) {
  Json json = {{"kind", kind_name(spec.kind)},
               {"pre_tokenizer", spec.pre_tokenizer},
               {"tokens", spec.tokens.size()},
               {"merges", spec.merges.size()},
               {"control_tokens", num_control(spec)},
               {"bos_id", spec.bos_id},
               {"eos_id", spec.eos_id},
               {"pad_id", spec.pad_id},
               {"unk_id", spec.unk_id},
               {"add_bos", spec.add_bos},
               {"has_chat_template", !spec.chat_template.empty()}};
  if (with_template) json["chat_template"] = spec.chat_template;
  return json;
}

Json tensors_json(const Checkpoint& checkpoint, const Totals& totals, bool with_list) {
  Json json = {{"count", checkpoint.tensors.size()}, {"encodings", Json::array()}};
  for (const auto& [name, total] : totals.by_encoding) {
    json["encodings"].push_back({{"name", name},
                                 {"count", total.count},
                                 {"bytes", total.bytes},
                                 {"kernel", total.kernel.empty() ? Json(nullptr) : Json(total.kernel)}});
  }
  if (!with_list) return json;
  Json& list = json["list"] = Json::array();
  for (const auto& [name, weight] : checkpoint.tensors) {
    list.push_back({{"name", name},
                    {"encoding", weight.encoding.name()},
                    {"shape", shape_of(weight)},
                    {"bytes", weight.total_bytes()}});
  }
  return json;
}

void print_json(const Checkpoint& checkpoint, const Options& options) {
  const Totals totals = totals_of(checkpoint);
  Json kv = Json::object();
  for (const auto& [type, bytes] : kv_sizes(checkpoint.config)) kv[type] = bytes;
  Json metadata = Json::array();
  for (const auto& [key, value] : checkpoint.metadata) {
    // The template is in `tokenizer`, on request.
    if (key != "tokenizer.chat_template") metadata.push_back({{"key", key}, {"value", value}});
  }
  const uint64_t available = available_memory_bytes();
  Json needs = Json::array();
  const uint64_t resident_bytes = footprint(checkpoint).resident_bytes;
  for (const Need& need : memory_needs(checkpoint, resident_bytes)) {
    needs.push_back({{"kv", need.kv},
                     {"context", need.context},
                     {"bytes", need.bytes},
                     {"fits", need.bytes <= available}});
  }
  const Json json = {{"schema", "tandem.inspect/1"},
                     {"path", checkpoint.path.string()},
                     {"format", checkpoint.format},
                     {"file_bytes", checkpoint.file_bytes},
                     {"config", config_json(checkpoint.config)},
                     {"parameters", totals.parameters},
                     {"tensors", tensors_json(checkpoint, totals, options.tensors)},
                     {"tokenizer", tokenizer_json(checkpoint.tokenizer, options.chat_template)},
                     {"footprint",
                      {{"weight_bytes", totals.bytes},
                       {"resident_bytes", resident_bytes},
                       {"kv_bytes_per_token", std::move(kv)},
                       {"available_memory_bytes", available},
                       {"one_sequence", std::move(needs)}}},
                     {"metadata", std::move(metadata)},
                     {"warnings", checkpoint.warnings}};
  fmt::print("{}\n", dump_json(json, 2));
}

int inspect(const Options& options) {
  const Checkpoint checkpoint = load_checkpoint(resolve_model_path(options.path));
  if (options.json) {
    print_json(checkpoint, options);
  } else if (options.chat_template) {
    fmt::print("{}", printable_lines(checkpoint.tokenizer.chat_template));
  } else {
    print_text(checkpoint, options);
  }
  return 0;
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("inspect", "Show what a model file holds");
  verb->add_option("MODEL", options->path, "GGUF file or Hugging Face folder")
      ->required()
      ->type_name("");
  verb->add_flag("--json", options->json, "Print one JSON document");
  verb->add_flag("--tensors", options->tensors, "List every tensor");
  verb->add_flag("--template", options->chat_template, "Print the chat template");
  verb->footer(
      "Examples:\n  tandem inspect model.gguf\n"
      "  tandem inspect model.gguf --tensors --json");
  verb->callback([options, &action] { action = [options] { return inspect(*options); }; });
}

}  // namespace tandem
