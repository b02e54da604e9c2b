#include "formats/tokenizer_json.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/json.h"
#include "formats/tokenizer_config.h"
#include "formats/tokenizer_pipeline.h"

namespace tandem {
namespace {

const SortedJson& array(const SortedJson& json, const char* key, const std::string& where) {
  const SortedJson& value = required_member(json, key, where);
  if (!value.is_array()) fail(ErrorKind::bad_file, "{}: '{}' is not an array", where, key);
  return value;
}

void read_model_options(const SortedJson& model, TokenizerSpec* spec, const std::string& where) {
  std::vector<const char*> unknown{"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
  if (spec->kind == TokenizerKind::byte_bpe) {
    unknown.insert(unknown.end(), {"fuse_unk", "byte_fallback"});
  }
  for (const char* option : unknown) {
    if (is_off(model, option)) continue;
    fail(ErrorKind::bad_file,
         "{}: option '{}' of the model is {}, which is not supported by this version", where,
         option, printed(model[option]));
  }
  spec->ignores_merges = !is_off(model, "ignore_merges");
  spec->falls_back_to_bytes = !is_off(model, "byte_fallback");
  spec->fuses_unknown = !is_off(model, "fuse_unk");
}

using Pairs = std::vector<std::pair<int32_t, std::string_view>>;

// Every id from 0 up names exactly one token.
void fill_tokens(const Pairs& pairs, TokenizerSpec* spec, const std::string& where) {
  spec->tokens.resize(pairs.size());
  std::vector<bool> taken(pairs.size(), false);
  for (const auto& [id, token] : pairs) {
    if (static_cast<size_t>(id) >= pairs.size() || taken[static_cast<size_t>(id)]) {
      fail(ErrorKind::bad_file,
           "{}: {} tokens do not fill the ids from 0 up: id {} of {} is out of range or "
           "taken",
           where, pairs.size(), id, quote(token));
    }
    taken[static_cast<size_t>(id)] = true;
    spec->tokens[static_cast<size_t>(id)] = token;
  }
}

Pairs bpe_pairs(const SortedJson& vocab, const std::string& where) {
  if (!vocab.is_object()) fail(ErrorKind::bad_file, "{}: 'vocab' is not an object", where);
  Pairs pairs;
  for (auto it = vocab.begin(); it != vocab.end(); ++it) {
    pairs.emplace_back(token_id(it.value(), it.key(), where), it.key());
  }
  return pairs;
}

// A list of [piece, score].
Pairs unigram_pairs(const SortedJson& vocab, TokenizerSpec* spec, const std::string& where) {
  if (!vocab.is_array() || vocab.size() >= kMaxTokenId) {
    fail(ErrorKind::bad_file, "{}: 'vocab' is not a list of fewer than {} pieces", where,
         kMaxTokenId);
  }
  Pairs pairs;
  for (const SortedJson& entry : vocab) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      fail(ErrorKind::bad_file, "{}: piece {} is {}, expected a text and a score", where,
           pairs.size(), printed(entry));
    }
    pairs.emplace_back(static_cast<int32_t>(pairs.size()), entry[0].get_ref<const std::string&>());
    spec->unigram_scores.push_back(entry[1].get<double>());
  }
  return pairs;
}

bool is_byte_token(std::string_view token) {
  return token.size() == 6 && token.starts_with("<0x") && token.ends_with('>') &&
         token.find_first_not_of("0123456789ABCDEF", 3) == 5;
}

void read_vocabulary(const SortedJson& json, TokenizerSpec* spec, const std::string& where) {
  const SortedJson& vocab = required_member(json["model"], "vocab", where);
  const bool unigram = spec->kind == TokenizerKind::unigram;
  Pairs pairs = unigram ? unigram_pairs(vocab, spec, where) : bpe_pairs(vocab, where);
  std::vector<std::pair<int32_t, TokenType>> added;
  if (!is_off(json, "added_tokens")) {
    std::map<std::string_view, int32_t> known;
    for (const auto& [id, token] : pairs) known.emplace(token, id);
    for (const SortedJson& token : array(json, "added_tokens", where)) {
      const SortedJson& content = required_member(token, "content", where);
      if (!content.is_string()) fail(ErrorKind::bad_file, "{}: an added token is not text", where);
      const auto& text = content.get_ref<const std::string&>();
      const int32_t id = token_id(required_member(token, "id", where), text, where);
      const auto [same, is_new] = known.emplace(text, id);
      if (is_new) pairs.emplace_back(id, text);
      if (same->second != id) {
        fail(ErrorKind::bad_file, "{}: added token {} has id {} and, in the vocabulary, {}", where,
             quote(text), id, same->second);
      }
      const bool special = member_or_null(token, "special") == true;
      added.emplace_back(id, special ? TokenType::control : TokenType::user_defined);
      const AddedToken flags = added_token_flags(token, id);
      if (has_flags(flags)) spec->added.push_back(flags);
    }
  }
  fill_tokens(pairs, spec, where);
  if (unigram) spec->unigram_scores.resize(spec->tokens.size());
  spec->types.assign(spec->tokens.size(), TokenType::normal);
  for (size_t id = 0; id < spec->tokens.size() && spec->falls_back_to_bytes; ++id) {
    if (is_byte_token(spec->tokens[id])) spec->types[id] = TokenType::byte;
  }
  for (const auto& [id, type] : added) spec->types[static_cast<size_t>(id)] = type;
}

// The token that stands for what the model does not know.
void read_unknown(const SortedJson& model, TokenizerSpec* spec, const std::string& where) {
  if (spec->kind == TokenizerKind::byte_bpe) return;
  const bool unigram = spec->kind == TokenizerKind::unigram;
  const SortedJson& unknown = member_or_null(model, unigram ? "unk_id" : "unk_token");
  if (unknown.is_null()) return;
  if (unigram) {
    spec->unk_id = token_id(unknown, "unk_id", where);
  } else if (unknown.is_string()) {
    const auto token = std::ranges::find(spec->tokens, unknown.get_ref<const std::string&>());
    spec->unk_id = static_cast<int32_t>(token - spec->tokens.begin());
  }
  if (spec->unk_id < 0 || static_cast<size_t>(spec->unk_id) >= spec->tokens.size()) {
    fail(ErrorKind::bad_file, "{}: the unknown token is {}, which is not in the vocabulary", where,
         printed(unknown));
  }
  TokenType& type = spec->types[static_cast<size_t>(spec->unk_id)];
  if (type == TokenType::normal) type = TokenType::unknown;
}

void read_merges(const SortedJson& json, TokenizerSpec* spec, const std::string& where) {
  const SortedJson& merges = array(json["model"], "merges", where);
  spec->merges.reserve(merges.size());
  for (const SortedJson& merge : merges) {
    std::string_view left, right;
    if (merge.is_string()) {  // "a b"; newer files write ["a", "b"]
      const std::string_view text = merge.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      left = text.substr(0, space);
      right = space == std::string_view::npos ? "" : text.substr(space + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      left = merge[0].get_ref<const std::string&>();
      right = merge[1].get_ref<const std::string&>();
    }
    if (left.empty() || right.empty() || right.find(' ') != std::string_view::npos) {
      fail(ErrorKind::bad_file, "{}: merge {} is {}, expected two pieces", where,
           spec->merges.size(), printed(merge));
    }
    spec->merges.emplace_back(left, right);
  }
}

}  // namespace

TokenizerSpec read_tokenizer_json(const std::filesystem::path& dir) {
  const std::filesystem::path path = dir / "tokenizer.json";
  const std::string where = path.string();
  const SortedJson json = read_json_object(path);
  TokenizerSpec spec;
  const SortedJson& model = required_member(json, "model", where);
  const std::string bos = read_tokenizer_pipeline(json, &spec, where);
  read_model_options(model, &spec, where);
  read_vocabulary(json, &spec, where);
  if (spec.kind != TokenizerKind::unigram) read_merges(json, &spec, where);
  read_unknown(model, &spec, where);
  read_tokenizer_config(dir, read_json_object(dir / "tokenizer_config.json"), &spec);
  if (!bos.empty()) {
    const auto token = std::ranges::find(spec.tokens, bos);
    if (token == spec.tokens.end()) {
      fail(ErrorKind::bad_file, "{}: post_processor puts {} in front, which is not a token", where,
           quote(bos));
    }
    spec.bos_id = static_cast<int32_t>(token - spec.tokens.begin());
    spec.add_bos = true;
  }
  return spec;
}

}  // namespace tandem
