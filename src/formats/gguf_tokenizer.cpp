#include "formats/gguf_tokenizer.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "base/error.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, SentencePiece's space

const GgufValue& required(const GgufFile& file, std::string_view key, const std::string& name) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) fail(ErrorKind::bad_file, "{}: key '{}' is missing", name, key);
  return *value;
}

std::string text_or(const GgufFile& file, std::string_view key, std::string_view otherwise,
                    const std::string& name) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return std::string(otherwise);
  if (value->type != GgufType::string) {
    fail(ErrorKind::bad_file, "{}: key '{}' is of type {}, expected a string", name, key,
         gguf_type_name(value->type));
  }
  return std::string(value->text());
}

bool flag_or(const GgufFile& file, std::string_view key, bool otherwise, const std::string& name) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return otherwise;
  if (value->type != GgufType::boolean) {
    fail(ErrorKind::bad_file, "{}: key '{}' is of type {}, expected a bool", name, key,
         gguf_type_name(value->type));
  }
  return value->number() != 0;
}

int32_t id_or(const GgufFile& file, std::string_view key, int32_t otherwise, size_t num_tokens,
              const std::string& name) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return otherwise;
  const auto id = value->unsigned_integer();
  if (id && *id == UINT32_MAX) return -1;  // how converters write "none"
  if (!id || *id >= num_tokens) {
    fail(ErrorKind::bad_file, "{}: key '{}' is {}, expected the id of one of {} tokens", name, key,
         id ? fmt::to_string(*id) : gguf_type_name(value->type), num_tokens);
  }
  return static_cast<int32_t>(*id);
}

const GgufValue& table(const GgufFile& file, std::string_view key, GgufType type, uint64_t count,
                       const std::string& name) {
  const GgufValue& value = required(file, key, name);
  if (!value.is_array_of(type) || value.count != count) {
    fail(ErrorKind::bad_file, "{}: key '{}' is {} of {} {}, expected an array of {} {}", name, key,
         gguf_type_name(value.type), value.count, gguf_type_name(value.element), count,
         gguf_type_name(type));
  }
  return value;
}

std::vector<std::string> read_tokens(const GgufFile& file, const std::string& name) {
  const GgufValue& value = required(file, "tokenizer.ggml.tokens", name);
  if (!value.is_array_of(GgufType::string)) {
    fail(ErrorKind::bad_file, "{}: key 'tokenizer.ggml.tokens' is not an array of strings", name);
  }
  const auto strings = value.strings();
  return {strings.begin(), strings.end()};
}

std::vector<TokenType> read_types(const GgufFile& file, size_t count, const std::string& name) {
  constexpr std::string_view kKey = "tokenizer.ggml.token_type";
  std::vector<TokenType> types(count, TokenType::normal);
  if (file.find(kKey) == nullptr) return types;
  const GgufValue& value = table(file, kKey, GgufType::i32, count, name);
  for (size_t i = 0; i < count; ++i) {
    const auto type = load_unaligned<int32_t>(value.bytes.data() + 4 * i);
    if (type < 1 || type > 6) {
      fail(ErrorKind::bad_file, "{}: token {} has type {}, expected 1 to 6", name, i, type);
    }
    types[i] = static_cast<TokenType>(type - 1);  // TokenType is in GGUF's order, from 0
  }
  return types;
}

std::vector<std::pair<std::string, std::string>> read_merges(const GgufFile& file,
                                                             const std::string& name) {
  const GgufValue& value = required(file, "tokenizer.ggml.merges", name);
  if (!value.is_array_of(GgufType::string)) {
    fail(ErrorKind::bad_file, "{}: key 'tokenizer.ggml.merges' is not an array of strings", name);
  }
  std::vector<std::pair<std::string, std::string>> merges;
  merges.reserve(value.count);
  for (const std::string_view merge : value.strings()) {
    const size_t space = merge.find(' ');
    const bool two_parts = space != std::string_view::npos && space > 0 &&
                           space + 1 < merge.size() &&
                           merge.find(' ', space + 1) == std::string_view::npos;
    if (!two_parts) {
      fail(ErrorKind::bad_file, "{}: merge {} is {}, expected two pieces with a space between",
           name, merges.size(), quote(merge));
    }
    merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  return merges;
}

std::vector<float> read_scores(const GgufFile& file, size_t count, const std::string& name) {
  const auto& value = table(file, "tokenizer.ggml.scores", GgufType::f32, count, name);
  std::vector<float> scores(count);
  std::memcpy(scores.data(), value.bytes.data(), value.bytes.size());
  return scores;
}

// Llama's SentencePiece: no normalization but spaces, one of them in front of every text that is
// not a special token.
void read_sentencepiece(const GgufFile& file, TokenizerSpec* spec, const std::string& name) {
  spec->kind = TokenizerKind::sentencepiece;
  spec->scores = read_scores(file, spec->tokens.size(), name);
  spec->strips_leading_space = flag_or(file, "tokenizer.ggml.add_space_prefix", true, name);
  if (spec->strips_leading_space) {
    spec->normalizer.push_back({NormalizerStep::Kind::prepend, "", std::string(kSpaceMark)});
  }
  spec->normalizer.push_back({NormalizerStep::Kind::replace, " ", std::string(kSpaceMark)});
}

void read_unigram(const GgufFile& file, TokenizerSpec* spec, const std::string& name) {
  spec->kind = TokenizerKind::unigram;
  const std::vector<float> scores = read_scores(file, spec->tokens.size(), name);
  spec->unigram_scores.assign(scores.begin(), scores.end());
  SentencePieceRules& rules = spec->rules.emplace();
  rules.adds_dummy_prefix = flag_or(file, "tokenizer.ggml.add_space_prefix", true, name);
  rules.removes_extra_spaces = flag_or(file, "tokenizer.ggml.remove_extra_whitespaces", true, name);
  spec->strips_leading_space = rules.adds_dummy_prefix;
  for (size_t id = 0; id < spec->types.size(); ++id) {
    const TokenType type = spec->types[id];
    if (type == TokenType::user_defined) rules.symbols.push_back(static_cast<int32_t>(id));
    if (type == TokenType::byte) rules.falls_back_to_bytes = true;
  }
  constexpr std::string_view kCharsmap = "tokenizer.ggml.precompiled_charsmap";
  const GgufValue* map = file.find(kCharsmap);
  if (map == nullptr) return;
  if (!map->is_array_of(GgufType::u8) && !map->is_array_of(GgufType::i8)) {
    fail(ErrorKind::bad_file, "{}: key '{}' is not an array of bytes", name, kCharsmap);
  }
  spec->charsmap.assign(reinterpret_cast<const char*>(map->bytes.data()), map->bytes.size());
}

void read_byte_bpe(const GgufFile& file, TokenizerSpec* spec, const std::string& name) {
  spec->kind = TokenizerKind::byte_bpe;
  spec->pre_tokenizer = text_or(file, "tokenizer.ggml.pre", "default", name);
  const auto is_any_of = [&](std::initializer_list<const char*> names) {
    return std::ranges::find(names, spec->pre_tokenizer) != names.end();
  };
  // GGUF tells these two by the name of the pre-tokenizer only.
  spec->normalizes_nfc = is_any_of({"qwen2"});
  spec->ignores_merges = is_any_of({"llama-bpe", "llama3", "llama-v3", "tekken"});
  spec->merges = read_merges(file, name);
}

}  // namespace

TokenizerSpec read_gguf_tokenizer(const GgufFile& file, const std::string& name) {
  TokenizerSpec spec;
  required(file, "tokenizer.ggml.model", name);
  const std::string model = text_or(file, "tokenizer.ggml.model", "", name);
  spec.tokens = read_tokens(file, name);
  spec.types = read_types(file, spec.tokens.size(), name);
  const bool llama = model == "llama";
  if (llama) {
    read_sentencepiece(file, &spec, name);
  } else if (model == "t5") {
    read_unigram(file, &spec, name);
  } else if (model == "gpt2") {
    read_byte_bpe(file, &spec, name);
  } else {
    fail(ErrorKind::bad_file,
         "{}: tokenizer model {} is not supported by this version (supported: gpt2, llama, t5)",
         name, quote(model));
  }
  const auto id = [&](std::string_view key, int32_t otherwise) {
    return id_or(file, key, otherwise, spec.tokens.size(), name);
  };
  // Models that leave these out mean Llama's or T5's own ids.
  const bool t5 = model == "t5";
  spec.bos_id = id("tokenizer.ggml.bos_token_id", llama ? 1 : -1);
  spec.eos_id = id("tokenizer.ggml.eos_token_id", llama ? 2 : t5 ? 1 : -1);
  spec.unk_id = id("tokenizer.ggml.unknown_token_id", llama ? 0 : t5 ? 2 : -1);
  spec.pad_id = id("tokenizer.ggml.padding_token_id", -1);
  spec.add_bos = flag_or(file, "tokenizer.ggml.add_bos_token", llama || spec.ignores_merges, name);
  spec.chat_template = text_or(file, "tokenizer.chat_template", "", name);
  return spec;
}

TokenizerSpec read_gguf_vocabulary(const std::filesystem::path& path) {
  const MappedFile mapped(path);
  return read_gguf_tokenizer(parse_gguf(mapped.bytes(), path.string(), GgufTensors::optional),
                             path.string());
}

}  // namespace tandem
