// tokenizer_config.json and chat_template.jinja: what a folder says about its tokenizer besides the
// tables.
#pragma once

#include <filesystem>
#include <string>

#include "base/json.h"
#include "formats/tokenizer_spec.h"

namespace tandem {

// json[key], or null when json is no object or has no such member.
const SortedJson& member_or_null(const SortedJson& json, const char* key);
// json[key]; throws bad_file when there is none.
const SortedJson& required_member(const SortedJson& json, const char* key,
                                  const std::string& where);
// Absent, null, false and "" all say the same of an option.
bool is_off(const SortedJson& json, const char* key);
// A value as text on one line of a message.
std::string printed(const SortedJson& json);

// A file of a folder as a JSON object; throws bad_file.
SortedJson read_json_object(const std::filesystem::path& path);

// Ids below this fit every table.
inline constexpr uint64_t kMaxTokenId = 16 << 20;
int32_t token_id(const SortedJson& value, std::string_view token, const std::string& where);

// The flags of an added token, as tokenizer.json and added_tokens_decoder write it.
AddedToken added_token_flags(const SortedJson& token, int32_t id);
bool has_flags(const AddedToken& token);

// Sets the special ids that the file names, the BOS switch where it is told, and the chat template.
// Throws bad_file on a special token that is not in the vocabulary.
void read_tokenizer_config(const std::filesystem::path& dir, const SortedJson& config,
                           TokenizerSpec* spec);

}  // namespace tandem
