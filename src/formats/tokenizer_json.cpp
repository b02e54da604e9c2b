#include "formats/tokenizer_json.h"

#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "formats/tokenizer_pipeline.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxFileBytes = 256 << 20;
constexpr uint64_t kMaxTokens = 16 << 20;

using Ids = std::unordered_map<std::string, int32_t>;

const SortedJson& member(const SortedJson& json, const char* key, const std::string& where) {
  const auto it = json.is_object() ? json.find(key) : json.end();
  if (!json.is_object() || it == json.end()) {
    fail(ErrorKind::bad_file, "{}: '{}' is missing", where, key);
  }
  return *it;
}

std::string printed(const SortedJson& json) {
  return quote(json.dump(-1, ' ', false, SortedJson::error_handler_t::replace), 160);
}

// Absent, null, false and "" all say the same of an option.
bool is_off(const SortedJson& json, const char* key) {
  const auto it = json.find(key);
  return it == json.end() || it->is_null() || *it == false || *it == "";
}

const SortedJson& array(const SortedJson& json, const char* key, const std::string& where) {
  const SortedJson& value = member(json, key, where);
  if (!value.is_array()) fail(ErrorKind::bad_file, "{}: '{}' is not an array", where, key);
  return value;
}

void check_model(const SortedJson& json, TokenizerSpec* spec, const std::string& where) {
  const SortedJson& model = member(json, "model", where);
  if (!model.is_object() || model.value("type", SortedJson()) != "BPE") {
    fail(ErrorKind::bad_file, "{}: only models of type BPE are supported by this version", where);
  }
  for (const char* option : {"dropout", "continuing_subword_prefix", "end_of_word_suffix",
                             "fuse_unk", "byte_fallback"}) {
    if (!is_off(model, option)) {
      fail(ErrorKind::bad_file,
           "{}: option '{}' of the BPE model is {}, which is not supported by this "
           "version",
           where, option, printed(model[option]));
    }
  }
  spec->ignores_merges = !is_off(model, "ignore_merges");
}

int32_t token_id(const SortedJson& value, std::string_view token, const std::string& where) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= kMaxTokens) {
    fail(ErrorKind::bad_file, "{}: token {} has id {}, expected an integer below {}", where,
         quote(token), printed(value), kMaxTokens);
  }
  return static_cast<int32_t>(value.get<uint64_t>());
}

// Every id from 0 up names exactly one token.
void fill_tokens(const std::vector<std::pair<int32_t, std::string_view>>& pairs,
                 TokenizerSpec* spec, const std::string& where) {
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

void read_vocabulary(const SortedJson& json, TokenizerSpec* spec, const std::string& where) {
  const SortedJson& vocab = member(json["model"], "vocab", where);
  if (!vocab.is_object()) fail(ErrorKind::bad_file, "{}: 'vocab' is not an object", where);
  std::vector<std::pair<int32_t, std::string_view>> pairs;
  for (auto it = vocab.begin(); it != vocab.end(); ++it) {
    pairs.emplace_back(token_id(it.value(), it.key(), where), it.key());
  }
  std::vector<std::pair<int32_t, TokenType>> added;
  if (!is_off(json, "added_tokens")) {
    for (const SortedJson& token : array(json, "added_tokens", where)) {
      const SortedJson& content = member(token, "content", where);
      if (!content.is_string()) fail(ErrorKind::bad_file, "{}: an added token is not text", where);
      const auto& text = content.get_ref<const std::string&>();
      for (const char* option : {"single_word", "lstrip", "rstrip"}) {
        if (is_off(token, option)) continue;
        fail(ErrorKind::bad_file, "{}: '{}' of added token {} is not supported by this version",
             where, option, quote(text));
      }
      const int32_t id = token_id(member(token, "id", where), text, where);
      const auto known = vocab.find(text);
      if (known == vocab.end()) {
        pairs.emplace_back(id, text);
      } else if (*known != id) {
        fail(ErrorKind::bad_file, "{}: added token {} has id {} and, in the vocabulary, {}", where,
             quote(text), id, printed(*known));
      }
      const bool special = token.value("special", SortedJson()) == true;
      added.emplace_back(id, special ? TokenType::control : TokenType::user_defined);
    }
  }
  fill_tokens(pairs, spec, where);
  spec->types.assign(spec->tokens.size(), TokenType::normal);
  for (const auto& [id, type] : added) spec->types[static_cast<size_t>(id)] = type;
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

// The id of a special token that tokenizer_config.json names by its text; -1 when it names none.
int32_t special_id(const SortedJson& config, const char* key, const Ids& ids,
                   const std::string& where) {
  const auto it = config.find(key);
  if (it == config.end() || it->is_null()) return -1;
  const SortedJson& text = it->is_object() ? member(*it, "content", where) : *it;
  if (!text.is_string()) fail(ErrorKind::bad_file, "{}: '{}' is not text", where, key);
  const auto id = ids.find(text.get_ref<const std::string&>());
  if (id == ids.end()) {
    fail(ErrorKind::bad_file, "{}: '{}' {} is not in the vocabulary", where, key, printed(text));
  }
  return id->second;
}

void read_config(const std::filesystem::path& dir, TokenizerSpec* spec) {
  const std::filesystem::path path = dir / "tokenizer_config.json";
  const std::string where = path.string();
  const SortedJson config = parse_sorted_json(read_text_file(path, kMaxFileBytes), where);
  if (!config.is_object()) fail(ErrorKind::bad_file, "{}: not a JSON object", where);
  Ids ids;
  for (size_t id = 0; id < spec->tokens.size(); ++id) {
    ids.emplace(spec->tokens[id], static_cast<int32_t>(id));
  }
  spec->bos_id = special_id(config, "bos_token", ids, where);
  spec->eos_id = special_id(config, "eos_token", ids, where);
  spec->pad_id = special_id(config, "pad_token", ids, where);
  spec->unk_id = special_id(config, "unk_token", ids, where);
  spec->add_bos = config.value("add_bos_token", SortedJson()) == true;
  const std::filesystem::path jinja = dir / "chat_template.jinja";
  if (std::filesystem::exists(jinja)) {
    spec->chat_template = read_text_file(jinja, kMaxFileBytes);
  } else if (!is_off(config, "chat_template")) {
    const SortedJson& text = config["chat_template"];
    if (!text.is_string()) {
      fail(ErrorKind::bad_file,
           "{}: 'chat_template' is a list; only one template is supported by this "
           "version",
           where);
    }
    spec->chat_template = text.get<std::string>();
  }
}

}  // namespace

TokenizerSpec read_tokenizer_json(const std::filesystem::path& dir) {
  const std::filesystem::path path = dir / "tokenizer.json";
  const std::string where = path.string();
  const SortedJson json = parse_sorted_json(read_text_file(path, kMaxFileBytes), where);
  if (!json.is_object()) fail(ErrorKind::bad_file, "{}: not a JSON object", where);
  TokenizerSpec spec;
  spec.kind = TokenizerKind::byte_bpe;
  const std::string bos = read_tokenizer_pipeline(json, &spec, where);
  check_model(json, &spec, where);
  read_vocabulary(json, &spec, where);
  read_merges(json, &spec, where);
  read_config(dir, &spec);
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
