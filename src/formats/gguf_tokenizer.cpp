#include "formats/gguf_tokenizer.h"

#include "base/error.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

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

}  // namespace

TokenizerSpec read_gguf_tokenizer(const GgufFile& file, const std::string& name) {
  TokenizerSpec spec;
  required(file, "tokenizer.ggml.model", name);
  const std::string model = text_or(file, "tokenizer.ggml.model", "", name);
  spec.tokens = read_tokens(file, name);
  spec.types = read_types(file, spec.tokens.size(), name);
  const bool sentencepiece = model == "llama";
  if (sentencepiece) {
    spec.kind = TokenizerKind::sentencepiece;
    const auto& scores =
        table(file, "tokenizer.ggml.scores", GgufType::f32, spec.tokens.size(), name);
    spec.scores.resize(spec.tokens.size());
    std::memcpy(spec.scores.data(), scores.bytes.data(), scores.bytes.size());
    if (!flag_or(file, "tokenizer.ggml.add_space_prefix", true, name)) {
      fail(ErrorKind::bad_file,
           "{}: a SentencePiece tokenizer without add_space_prefix is not supported "
           "by this version",
           name);
    }
  } else if (model == "gpt2") {
    spec.kind = TokenizerKind::byte_bpe;
    spec.pre_tokenizer = text_or(file, "tokenizer.ggml.pre", "default", name);
    // GGUF tells these two by the name of the pre-tokenizer only.
    spec.normalizes_nfc = spec.pre_tokenizer == "qwen2";
    spec.ignores_merges = spec.pre_tokenizer == "llama-bpe";
    spec.merges = read_merges(file, name);
  } else {
    fail(ErrorKind::bad_file,
         "{}: tokenizer model {} is not supported by this version (supported: gpt2, "
         "llama)",
         name, quote(model));
  }
  const auto id = [&](std::string_view key, int32_t otherwise) {
    return id_or(file, key, otherwise, spec.tokens.size(), name);
  };
  // SentencePiece models that leave these out mean Llama's own ids.
  spec.bos_id = id("tokenizer.ggml.bos_token_id", sentencepiece ? 1 : -1);
  spec.eos_id = id("tokenizer.ggml.eos_token_id", sentencepiece ? 2 : -1);
  spec.unk_id = id("tokenizer.ggml.unknown_token_id", sentencepiece ? 0 : -1);
  spec.pad_id = id("tokenizer.ggml.padding_token_id", -1);
  spec.add_bos = flag_or(file, "tokenizer.ggml.add_bos_token",
                         sentencepiece || spec.pre_tokenizer == "llama-bpe", name);
  spec.chat_template = text_or(file, "tokenizer.chat_template", "", name);
  return spec;
}

TokenizerSpec read_gguf_vocabulary(const std::filesystem::path& path) {
  const MappedFile mapped(path);
  return read_gguf_tokenizer(parse_gguf(mapped.bytes(), path.string(), GgufTensors::optional),
                             path.string());
}

}  // namespace tandem
