#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"
#include "formats/tokenizer_json.h"

namespace tandem {
namespace {

void check_writable(const TokenizerSpec& spec) {
  if (spec.kind != TokenizerKind::byte_bpe || spec.pre_tokenizer != "smollm" || spec.add_bos ||
      spec.normalizes_nfc || spec.ignores_merges || !spec.normalizer.empty() ||
      !spec.added.empty()) {
    fail(ErrorKind::usage,
         "a tokenizer.json can be written for byte-level BPE with pre-tokenizer 'smollm' "
         "and neither a BOS in front nor a normalizer nor flags of added tokens; this model has {} "
         "with pre-tokenizer {}{}",
         spec.kind == TokenizerKind::byte_bpe ? "byte-level BPE" : "SentencePiece",
         quote(spec.pre_tokenizer), spec.add_bos ? " and a BOS" : "");
  }
  for (const auto& token : spec.tokens) {
    if (!utf8_valid(token)) {
      fail(ErrorKind::bad_file, "token {} is not UTF-8 and cannot be written as JSON",
           quote(token));
    }
  }
}

bool is_added(TokenType type) {
  return type == TokenType::control || type == TokenType::unknown ||
         type == TokenType::user_defined;
}

Json added_token(const TokenizerSpec& spec, size_t id) {
  return {{"id", id},
          {"content", spec.tokens[id]},
          {"single_word", false},
          {"lstrip", false},
          {"rstrip", false},
          {"normalized", false},
          {"special", spec.types[id] != TokenType::user_defined}};
}

Json model(const TokenizerSpec& spec) {
  // Appended, because an ordered object looks up each new key by walking all others.
  Json::object_t vocab;
  for (size_t id = 0; id < spec.tokens.size(); ++id) vocab.emplace_back(spec.tokens[id], id);
  Json merges = Json::array();
  for (const auto& [left, right] : spec.merges) merges.push_back(left + " " + right);
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", false},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

Json byte_level(bool add_prefix_space) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", true}};
}

}  // namespace

std::string tokenizer_json(const TokenizerSpec& spec) {
  check_writable(spec);
  Json added = Json::array();
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    if (is_added(spec.types[id])) added.push_back(added_token(spec, id));
  }
  const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
  const Json json = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", std::move(added)},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "Sequence"}, {"pretokenizers", Json::array({digits, byte_level(false)})}}},
      {"post_processor", nullptr},
      {"decoder", byte_level(true)},
      {"model", model(spec)}};
  return dump_json(json, 1) + "\n";
}

std::string tokenizer_config_json(const TokenizerSpec& spec, const ModelConfig& config) {
  // PreTrainedTokenizerFast takes tokenizer.json as it is; a model's own class would rebuild its
  // pre-tokenizer and lose the digits.
  Json json = {{"tokenizer_class", "PreTrainedTokenizerFast"},
               {"model_max_length", config.max_context},
               {"clean_up_tokenization_spaces", false},
               {"add_prefix_space", false},
               {"add_bos_token", spec.add_bos}};
  const std::pair<const char*, int32_t> ids[] = {{"bos_token", spec.bos_id},
                                                 {"eos_token", spec.eos_id},
                                                 {"pad_token", spec.pad_id},
                                                 {"unk_token", spec.unk_id}};
  for (const auto& [key, id] : ids) {
    if (id >= 0) json[key] = spec.tokens[static_cast<size_t>(id)];
  }
  Json decoder = Json::object();
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    if (!is_added(spec.types[id])) continue;
    Json token = added_token(spec, id);
    token.erase("id");
    decoder[std::to_string(id)] = std::move(token);
  }
  json["added_tokens_decoder"] = std::move(decoder);
  if (!spec.chat_template.empty()) json["chat_template"] = spec.chat_template;
  return dump_json(json, 2) + "\n";
}

}  // namespace tandem
