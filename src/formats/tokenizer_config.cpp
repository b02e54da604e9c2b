#include "formats/tokenizer_config.h"

#include <unordered_map>

#include "base/error.h"
#include "base/file.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxFileBytes = 256 << 20;

using Ids = std::unordered_map<std::string, int32_t>;

}  // namespace

const SortedJson& member_or_null(const SortedJson& json, const char* key) {
  static const SortedJson kNull;
  if (!json.is_object()) return kNull;
  const auto it = json.find(key);
  return it == json.end() ? kNull : *it;
}

const SortedJson& required_member(const SortedJson& json, const char* key,
                                  const std::string& where) {
  if (!json.is_object() || !json.contains(key)) {
    fail(ErrorKind::bad_file, "{}: '{}' is missing", where, key);
  }
  return json[key];
}

bool is_off(const SortedJson& json, const char* key) {
  const SortedJson& value = member_or_null(json, key);
  return value.is_null() || value == false || value == "";
}

std::string printed(const SortedJson& json) {
  return quote(json.dump(-1, ' ', false, SortedJson::error_handler_t::replace), 160);
}

SortedJson read_json_object(const std::filesystem::path& path) {
  SortedJson json = parse_sorted_json(read_text_file(path, kMaxFileBytes), path.string());
  if (!json.is_object()) fail(ErrorKind::bad_file, "{}: not a JSON object", path.string());
  return json;
}

int32_t token_id(const SortedJson& value, std::string_view token, const std::string& where) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= kMaxTokenId) {
    fail(ErrorKind::bad_file, "{}: token {} has id {}, expected an integer below {}", where,
         quote(token), printed(value), kMaxTokenId);
  }
  return static_cast<int32_t>(value.get<uint64_t>());
}

AddedToken added_token_flags(const SortedJson& token, int32_t id) {
  return {id, !is_off(token, "lstrip"), !is_off(token, "rstrip"), !is_off(token, "single_word"),
          !is_off(token, "normalized")};
}

bool has_flags(const AddedToken& token) {
  return token.strips_left || token.strips_right || token.single_word || token.normalized;
}

namespace {

// The id of a special token that tokenizer_config.json names by its text.
int32_t special_id(const SortedJson& config, const char* key, const Ids& ids, int32_t otherwise,
                   const std::string& where) {
  const SortedJson& named = member_or_null(config, key);
  if (named.is_null()) return otherwise;
  const SortedJson& text = named.is_object() ? required_member(named, "content", where) : named;
  if (!text.is_string()) fail(ErrorKind::bad_file, "{}: '{}' is not text", where, key);
  const auto id = ids.find(text.get_ref<const std::string&>());
  if (id == ids.end()) {
    fail(ErrorKind::bad_file, "{}: '{}' {} is not in the vocabulary", where, key, printed(text));
  }
  return id->second;
}

}  // namespace

void read_tokenizer_config(const std::filesystem::path& dir, const SortedJson& config,
                           TokenizerSpec* spec) {
  const std::string where = (dir / "tokenizer_config.json").string();
  Ids ids;
  for (size_t id = 0; id < spec->tokens.size(); ++id) {
    ids.emplace(spec->tokens[id], static_cast<int32_t>(id));
  }
  spec->bos_id = special_id(config, "bos_token", ids, spec->bos_id, where);
  spec->eos_id = special_id(config, "eos_token", ids, spec->eos_id, where);
  spec->pad_id = special_id(config, "pad_token", ids, spec->pad_id, where);
  // Elsewhere the model itself says what it makes of the unknown.
  if (spec->kind == TokenizerKind::byte_bpe) {
    spec->unk_id = special_id(config, "unk_token", ids, spec->unk_id, where);
  }
  const SortedJson& add_bos = member_or_null(config, "add_bos_token");
  if (!add_bos.is_null()) spec->add_bos = add_bos == true;
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

}  // namespace tandem
