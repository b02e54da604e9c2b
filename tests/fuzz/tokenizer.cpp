// tokenizer.json and tokenizer_config.json -> a tokenizer, and what it makes of a text. The input
// is all three, with a NUL between.
#include "text/tokenizer.h"

#include <array>

#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"
#include "formats/tokenizer_json.h"
#include "fuzz/json_mutator.h"
#include "fuzz/target.h"
#include "text/vocabulary.h"

namespace tandem::fuzz {
namespace {

constexpr const char* kTexts[] = {"Hello world's 123 aaaaaaaa",
                                  "  \n\n\t x",
                                  "<|end|><|end|",
                                  "caf\u00E9 e\u0301 \u200D\U0001F469\u200D\U0001F469",
                                  "\xFF\xC0\x80\xED\xA0\x80",
                                  "\u202Eabc \u00BD\u0660 'LL '\u017F"};

std::array<std::string, 3> split(std::string_view input) {
  std::array<std::string, 3> parts;
  for (size_t i = 0; i < 3; ++i) {
    const size_t border = i < 2 ? std::min(input.find('\0'), input.size()) : input.size();
    parts[i] = input.substr(0, border);
    input.remove_prefix(std::min(border + 1, input.size()));
  }
  return parts;
}

std::string join(const std::array<std::string, 3>& parts) {
  return parts[0] + '\0' + parts[1] + '\0' + parts[2];
}

void use(const TokenizerSpec& spec, const std::string& text) {
  const Tokenizer tokenizer(spec);
  const std::vector<int32_t> ids = tokenizer.encode(text);
  require(ids.size() <= text.size() + 1 || spec.normalizes_nfc, "no more tokens than bytes");
  for (const int32_t id : ids) {
    require(id >= 0 && id < tokenizer.vocab_size(), "ids lie in the vocabulary");
    tokenizer.token_name(id);
  }
  const std::string back = tokenizer.decode(ids);
  // Plain text comes back when every byte has a token and nothing rewrites it on the way.
  bool complete = spec.kind == TokenizerKind::byte_bpe && !spec.normalizes_nfc;
  for (size_t b = 0; b < 256 && complete; ++b) {
    std::string symbol;
    utf8_append(symbol, byte_stand_ins()[b]);
    complete = std::ranges::find(spec.tokens, symbol) != spec.tokens.end();
  }
  const auto is_normal = [](TokenType type) { return type == TokenType::normal; };
  if (complete && std::ranges::all_of(spec.types, is_normal)) {
    require(back == text, "decode gives back what encode was given");
  }
  tokenizer.encode(std::vector<TextSpan>{{text, true}, {"x" + text, false}, {text, true}});
}

void run(std::string_view input) {
  static const ScratchFolder folder;
  const auto [tokenizer, config, text] = split(input);
  folder.write("tokenizer.json", tokenizer);
  folder.write("tokenizer_config.json", config);
  const std::string& given = text;  // a structured binding cannot be captured
  expect_error_or_success([&] { use(read_tokenizer_json(folder.path()), given); });
}

std::string mutate(const std::string& input, Random& random, const ByteMutator& bytes) {
  static const std::vector<std::string> kWords = {"model",
                                                  "vocab",
                                                  "merges",
                                                  "added_tokens",
                                                  "normalizer",
                                                  "pre_tokenizer",
                                                  "post_processor",
                                                  "decoder",
                                                  "type",
                                                  "BPE",
                                                  "Unigram",
                                                  "unk_id",
                                                  "unk_token",
                                                  "byte_fallback",
                                                  "ignore_merges",
                                                  "ByteLevel",
                                                  "Digits",
                                                  "Split",
                                                  "Sequence",
                                                  "NFC",
                                                  "Replace",
                                                  "Prepend",
                                                  "Metaspace",
                                                  "Fuse",
                                                  "Strip",
                                                  "ByteFallback",
                                                  "Precompiled",
                                                  "TemplateProcessing",
                                                  "pretokenizers",
                                                  "processors",
                                                  "normalizers",
                                                  "decoders",
                                                  "pattern",
                                                  "Regex",
                                                  "String",
                                                  "content",
                                                  "special",
                                                  "id",
                                                  "single",
                                                  "SpecialToken",
                                                  "lstrip",
                                                  "rstrip",
                                                  "normalized",
                                                  "single_word",
                                                  "add_prefix_space",
                                                  "use_regex",
                                                  "individual_digits",
                                                  "behavior",
                                                  "Isolated",
                                                  "invert",
                                                  "a b",
                                                  "ab c",
                                                  "<|end|>",
                                                  "<0x41>",
                                                  "\u2581",
                                                  "bos_token",
                                                  "eos_token",
                                                  "chat_template",
                                                  "add_bos_token",
                                                  ""};
  std::array<std::string, 3> parts = split(input);
  switch (random.below(4)) {
    case 0:
      parts[1] = mutate_json(parts[1], random, bytes, kWords);
      break;
    case 1:
      if (random.below(2) == 0)
        parts[2] += pick(kTexts, random);
      else
        bytes(parts[2]);
      std::erase(parts[2], '\0');
      break;
    default:
      parts[0] = mutate_json(parts[0], random, bytes, kWords);
  }
  return join(parts);
}

// Every byte, and two merges.
Json byte_level_vocabulary() {
  Json vocab = Json::object();
  for (const uint16_t stand_in : byte_stand_ins()) {
    std::string symbol;
    utf8_append(symbol, stand_in);
    vocab[symbol] = vocab.size();
  }
  for (const char* token : {"he", "ll", "hell"}) vocab[token] = vocab.size();
  return vocab;
}

std::vector<std::string> seeds() {
  const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  const auto pipeline = [&](const Json& pre, const Json& normalizer, const Json& vocab,
                            const Json& merges) {
    return Json{{"added_tokens", Json::array()},
                {"normalizer", normalizer},
                {"pre_tokenizer", pre},
                {"post_processor", nullptr},
                {"decoder", {{"type", "ByteLevel"}}},
                {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
  };
  const auto split_by = [&](const char* digits) {
    const std::string pattern =
        std::string(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)") + digits +
        R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    Json second = byte_level;
    second["use_regex"] = false;
    return Json{{"type", "Sequence"},
                {"pretokenizers",
                 {{{"type", "Split"},
                   {"pattern", {{"Regex", pattern}}},
                   {"behavior", "Isolated"},
                   {"invert", false}},
                  second}}};
  };
  const Json small = {{"a", 0}, {"b", 1}, {"ab", 2}, {"c", 3}, {"abc", 4}};
  const Json small_merges = {"a b", "ab c"};
  const Json merges = {{"h", "e"}, {"l", "l"}, {"he", "ll"}};
  const Json digits = {
      {"type", "Sequence"},
      {"pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}}, byte_level}}};
  Json special = pipeline(byte_level, nullptr, small, small_merges);
  special["added_tokens"] = {{{"id", 5}, {"content", "<|end|>"}, {"special", true}},
                             {{"id", 6}, {"content", "<|end"}, {"special", false}}};
  special["post_processor"] = {{"type", "TemplateProcessing"},
                               {"single",
                                {{{"SpecialToken", {{"id", "<|end|>"}, {"type_id", 0}}}},
                                 {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}}};
  const Json all = byte_level_vocabulary();
  const Json files[] = {pipeline(byte_level, nullptr, small, small_merges),
                        special,
                        pipeline(byte_level, nullptr, all, merges),
                        pipeline(digits, nullptr, all, merges),
                        pipeline(split_by("\\p{N}{1,3}"), nullptr, all, merges),
                        pipeline(split_by("\\p{N}"), {{"type", "NFC"}}, all, merges)};
  std::vector<std::string> out;
  for (const Json& file : files) out.push_back(join({dump_json(file), "{}", kTexts[0]}));
  for (const char* text : kTexts)
    out.push_back(join({dump_json(files[out.size() % 6]), "{}", text}));
  out.push_back(join({dump_json(special),
                      R"({"eos_token":"<|end|>","bos_token":{"content":"<|end"},)"
                      R"("add_bos_token":true,"chat_template":"{{ messages }}"})",
                      "ab"}));
  return out;
}

}  // namespace

const Target& tokenizer_target() {
  static const Target target{"tokenizer", run, seeds, mutate};
  return target;
}

}  // namespace tandem::fuzz
