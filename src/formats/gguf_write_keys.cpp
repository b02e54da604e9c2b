#include "formats/gguf_write_keys.h"

#include "base/error.h"

namespace tandem {
namespace {

// How converters write "no such token" where leaving the key out means a token of its own.
constexpr uint32_t kNoToken = UINT32_MAX;

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  fail(ErrorKind::usage, "{}: a GGUF file cannot describe this tokenizer to llama.cpp: {}", where,
       what);
}

// GGUF tells NFC and unmerged words by the name of the pre-tokenizer only.
void check_byte_bpe(const TokenizerSpec& spec, const std::string& where) {
  if (spec.pre_tokenizer.empty()) refuse(where, "its pre-tokenizer has no name");
  const std::string& name = spec.pre_tokenizer;
  const bool ignores = name == "llama-bpe" || name == "llama3" || name == "llama-v3";
  if (spec.normalizes_nfc != (name == "qwen2")) {
    refuse(where, fmt::format("pre-tokenizer {} {} NFC", quote(name),
                              spec.normalizes_nfc ? "after" : "without"));
  }
  if (spec.ignores_merges != ignores) {
    refuse(where, fmt::format("pre-tokenizer {} with words that are tokens {}", quote(name),
                              spec.ignores_merges ? "left whole" : "merged up"));
  }
  if (!spec.normalizer.empty() || spec.metaspace || spec.rules) {
    refuse(where, "a normalizer in front of byte-level BPE");
  }
}

// llama.cpp turns spaces into U+2581 and puts one in front or not; nothing else.
bool prepends_space(const TokenizerSpec& spec, const std::string& where) {
  using Kind = NormalizerStep::Kind;
  const auto& steps = spec.normalizer;
  const bool replaces = !steps.empty() && steps.back().kind == Kind::replace &&
                        steps.back().from == " " && steps.back().to == kSpaceMark;
  const bool prepends =
      steps.size() == 2 && steps[0].kind == Kind::prepend && steps[0].to == kSpaceMark;
  if (!replaces || steps.size() > 2 || (steps.size() == 2 && !prepends) || spec.normalizes_nfc ||
      spec.metaspace || spec.rules) {
    refuse(where, "SentencePiece that does more to a text than to mark its spaces");
  }
  return prepends;
}

void add_ids(const TokenizerSpec& spec, GgufKeys* keys) {
  // Llama's own ids are meant where a SentencePiece model leaves one of the first three out.
  const bool has_default = spec.kind == TokenizerKind::sentencepiece;
  const auto add = [&](std::string_view key, int32_t id, bool defaults) {
    if (id >= 0 || defaults) keys->add_u32(key, id >= 0 ? static_cast<uint32_t>(id) : kNoToken);
  };
  add("tokenizer.ggml.bos_token_id", spec.bos_id, has_default);
  add("tokenizer.ggml.eos_token_id", spec.eos_id, has_default);
  add("tokenizer.ggml.unknown_token_id", spec.unk_id, has_default);
  add("tokenizer.ggml.padding_token_id", spec.pad_id, false);
}

}  // namespace

void GgufKeys::begin(std::string_view key, GgufType type) {
  put_text(key);
  put(static_cast<uint32_t>(type));
  ++count_;
}

void GgufKeys::begin_array(std::string_view key, GgufType element, uint64_t count) {
  begin(key, GgufType::array);
  put(static_cast<uint32_t>(element));
  put(count);
}

void GgufKeys::put_text(std::string_view text) {
  put(static_cast<uint64_t>(text.size()));
  bytes_ += text;
}

void GgufKeys::add_text(std::string_view key, std::string_view value) {
  begin(key, GgufType::string);
  put_text(value);
}

void GgufKeys::add_u32(std::string_view key, uint32_t value) {
  begin(key, GgufType::u32);
  put(value);
}

void GgufKeys::add_f32(std::string_view key, float value) {
  begin(key, GgufType::f32);
  put(value);
}

void GgufKeys::add_bool(std::string_view key, bool value) {
  begin(key, GgufType::boolean);
  put(static_cast<uint8_t>(value));
}

void GgufKeys::add_texts(std::string_view key, std::span<const std::string> values) {
  begin_array(key, GgufType::string, values.size());
  for (const std::string& value : values) put_text(value);
}

void GgufKeys::add_i32s(std::string_view key, std::span<const int32_t> values) {
  begin_array(key, GgufType::i32, values.size());
  for (const int32_t value : values) put(value);
}

void GgufKeys::add_f32s(std::string_view key, std::span<const float> values) {
  begin_array(key, GgufType::f32, values.size());
  for (const float value : values) put(value);
}

void add_gguf_tokenizer(const TokenizerSpec& spec, const std::string& where, GgufKeys* keys) {
  if (spec.kind != TokenizerKind::byte_bpe && spec.kind != TokenizerKind::sentencepiece) {
    refuse(where, spec.kind == TokenizerKind::unigram ? "Unigram" : "BPE of pieces by merges");
  }
  const bool is_bpe = spec.kind == TokenizerKind::byte_bpe;
  if (is_bpe) check_byte_bpe(spec, where);
  keys->add_text("tokenizer.ggml.model", is_bpe ? "gpt2" : "llama");
  keys->add_text("tokenizer.ggml.pre", is_bpe ? spec.pre_tokenizer : "default");
  keys->add_texts("tokenizer.ggml.tokens", spec.tokens);
  if (!is_bpe) {
    keys->add_bool("tokenizer.ggml.add_space_prefix", prepends_space(spec, where));
    keys->add_f32s("tokenizer.ggml.scores", spec.scores);
  }
  std::vector<int32_t> types;
  // TokenType is in GGUF's order, which begins with 1.
  for (const TokenType type : spec.types) types.push_back(static_cast<int32_t>(type) + 1);
  keys->add_i32s("tokenizer.ggml.token_type", types);
  if (is_bpe) {
    std::vector<std::string> merges;
    merges.reserve(spec.merges.size());
    for (const auto& [left, right] : spec.merges) merges.push_back(left + " " + right);
    keys->add_texts("tokenizer.ggml.merges", merges);
  }
  add_ids(spec, keys);
  keys->add_bool("tokenizer.ggml.add_bos_token", spec.add_bos);
  if (!spec.chat_template.empty()) keys->add_text("tokenizer.chat_template", spec.chat_template);
}

}  // namespace tandem
