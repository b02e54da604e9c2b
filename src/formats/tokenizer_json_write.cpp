#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"
#include "formats/tokenizer_json.h"
#include "formats/tokenizer_pipeline.h"

namespace tandem {
namespace {

constexpr const char* kSpaceMark = "\xE2\x96\x81";  // U+2581

Json byte_level(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

// The steps in front of the BPE model that GGUF's name stands for; null: not known here.
Json pre_tokenizer(const TokenizerSpec& spec) {
  if (spec.pre_tokenizer == "gpt-2") return byte_level(false, true);
  Json first;
  if (spec.pre_tokenizer == "smollm") {
    first = {{"type", "Digits"}, {"individual_digits", true}};
  } else if (const char* pattern = split_pattern(spec.pre_tokenizer)) {
    first = {{"type", "Split"},
             {"pattern", {{"Regex", pattern}}},
             {"behavior", "Isolated"},
             {"invert", false}};
  } else {
    return nullptr;
  }
  const bool use_regex = spec.pre_tokenizer == "smollm";
  return {{"type", "Sequence"},
          {"pretokenizers", Json::array({first, byte_level(false, use_regex)})}};
}

void check_writable(const TokenizerSpec& spec) {
  const bool is_bpe = spec.kind == TokenizerKind::byte_bpe;
  if (is_bpe && pre_tokenizer(spec).is_null()) {
    fail(ErrorKind::usage,
         "a tokenizer.json for pre-tokenizer {} cannot be written by this version (written: gpt-2, "
         "smollm, llama-bpe, qwen2, SentencePiece BPE)",
         quote(spec.pre_tokenizer));
  }
  if (!is_bpe && spec.kind != TokenizerKind::sentencepiece) {
    fail(ErrorKind::usage,
         "a tokenizer.json for this kind of tokenizer cannot be written by this version (written: "
         "byte-level BPE, SentencePiece BPE)");
  }
  if (spec.metaspace || spec.rules || !spec.charsmap.empty()) {
    fail(ErrorKind::usage,
         "a tokenizer.json with Metaspace or SentencePiece's own rules cannot be written by this "
         "version");
  }
  std::unordered_set<std::string_view> seen;
  for (const auto& token : spec.tokens) {
    if (!utf8_valid(token)) {
      fail(ErrorKind::bad_file, "token {} is not UTF-8 and cannot be written as JSON",
           quote(token));
    }
    if (!seen.insert(token).second) {
      fail(ErrorKind::bad_file, "token {} has two ids, which a tokenizer.json cannot say",
           quote(token));
    }
  }
}

bool is_added(TokenType type) {
  return type == TokenType::control || type == TokenType::unknown ||
         type == TokenType::user_defined;
}

Json added_token(const TokenizerSpec& spec, size_t id) {
  const auto has_flags = [id](const AddedToken& t) { return t.id == static_cast<int32_t>(id); };
  const auto found = std::ranges::find_if(spec.added, has_flags);
  const AddedToken flags = found == spec.added.end() ? AddedToken{} : *found;
  return {{"id", id},
          {"content", spec.tokens[id]},
          {"single_word", flags.single_word},
          {"lstrip", flags.strips_left},
          {"rstrip", flags.strips_right},
          {"normalized", flags.normalized},
          {"special", spec.types[id] != TokenType::user_defined}};
}

// SentencePiece's merges by scores as a list, the order in which Hugging Face's converter has them:
// pieces of higher scores first, among the ways to make one those with the longer left part.
Json merges_by_score(const TokenizerSpec& spec) {
  std::unordered_map<std::string_view, size_t> ids;
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    if (spec.types[id] == TokenType::normal) ids.emplace(spec.tokens[id], id);
  }
  std::vector<size_t> order;
  for (const auto& [token, id] : ids) order.push_back(id);
  std::ranges::sort(order, [&](size_t a, size_t b) {
    return std::pair(-spec.scores[a], a) < std::pair(-spec.scores[b], b);
  });
  Json merges = Json::array();
  for (const size_t id : order) {
    const std::string_view piece = spec.tokens[id];
    for (size_t left = piece.size() - 1; left > 0; --left) {
      const std::string_view a = piece.substr(0, left), b = piece.substr(left);
      if (!ids.contains(a) || !ids.contains(b)) continue;
      merges.push_back(Json::array({std::string(a), std::string(b)}));
    }
  }
  return merges;
}

bool has_all_bytes(const TokenizerSpec& spec) {
  return std::ranges::count(spec.types, TokenType::byte) == 256;
}

Json normalizer_step(const NormalizerStep& step) {
  using Kind = NormalizerStep::Kind;
  if (step.kind == Kind::prepend) return {{"type", "Prepend"}, {"prepend", step.to}};
  if (step.kind == Kind::replace) {
    return {{"type", "Replace"}, {"pattern", {{"String", step.from}}}, {"content", step.to}};
  }
  fail(
      ErrorKind::usage,
      "a tokenizer.json with a normalizer other than NFC, Prepend and Replace cannot be written by "
      "this version");
}

// Null, one step or a sequence.
Json normalizer(const TokenizerSpec& spec) {
  Json steps = Json::array();
  if (spec.normalizes_nfc) steps.push_back(Json{{"type", "NFC"}});
  for (const NormalizerStep& step : spec.normalizer) steps.push_back(normalizer_step(step));
  if (steps.empty()) return nullptr;
  if (steps.size() == 1) return steps[0];
  return {{"type", "Sequence"}, {"normalizers", std::move(steps)}};
}

Json sentencepiece_decoder(const TokenizerSpec& spec) {
  const Json replace = {
      {"type", "Replace"}, {"pattern", {{"String", kSpaceMark}}}, {"content", " "}};
  Json steps = Json::array({replace, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (spec.strips_leading_space) {
    steps.push_back(Json{{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  return {{"type", "Sequence"}, {"decoders", std::move(steps)}};
}

// The BOS in front of a text and of each of a pair.
Json post_processor(const TokenizerSpec& spec) {
  if (!spec.add_bos) return nullptr;
  const std::string& bos = spec.tokens[static_cast<size_t>(spec.bos_id)];
  const auto special = [&](int type) {
    return Json{{"SpecialToken", {{"id", bos}, {"type_id", type}}}};
  };
  const auto text = [](const char* id, int type) {
    return Json{{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  return {{"type", "TemplateProcessing"},
          {"single", Json::array({special(0), text("A", 0)})},
          {"pair", Json::array({special(0), text("A", 0), special(1), text("B", 1)})},
          {"special_tokens",
           {{bos,
             {{"id", bos}, {"ids", Json::array({spec.bos_id})}, {"tokens", Json::array({bos})}}}}}};
}

Json model(const TokenizerSpec& spec) {
  // Appended, because an ordered object looks up each new key by walking all others.
  Json::object_t vocab;
  for (size_t id = 0; id < spec.tokens.size(); ++id) vocab.emplace_back(spec.tokens[id], id);
  const bool pieces = spec.kind == TokenizerKind::sentencepiece;
  Json merges = pieces ? merges_by_score(spec) : Json::array();
  for (const auto& [left, right] : spec.merges) merges.push_back(left + " " + right);
  Json unknown = nullptr;
  if (pieces && spec.unk_id >= 0) unknown = spec.tokens[static_cast<size_t>(spec.unk_id)];
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", std::move(unknown)},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", pieces},
          {"byte_fallback", pieces && has_all_bytes(spec)},
          {"ignore_merges", spec.ignores_merges},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

}  // namespace

std::string tokenizer_json(const TokenizerSpec& spec) {
  check_writable(spec);
  Json added = Json::array();
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    if (is_added(spec.types[id])) added.push_back(added_token(spec, id));
  }
  const bool pieces = spec.kind == TokenizerKind::sentencepiece;
  const Json json = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", std::move(added)},
                     {"normalizer", normalizer(spec)},
                     {"pre_tokenizer", pieces ? Json(nullptr) : pre_tokenizer(spec)},
                     {"post_processor", post_processor(spec)},
                     {"decoder", pieces ? sentencepiece_decoder(spec) : byte_level(true, true)},
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
