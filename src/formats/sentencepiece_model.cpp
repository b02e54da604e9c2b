#include "formats/sentencepiece_model.h"

#include <algorithm>
#include <bit>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "formats/protobuf_reader.h"
#include "formats/tokenizer_config.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxFileBytes = 256 << 20;
constexpr uint64_t kUnigram = 1, kBpe = 2;  // TrainerSpec.ModelType

struct Trainer {
  uint64_t model_type = kUnigram;
  bool byte_fallback = false, whitespace_as_suffix = false;
  int32_t bos_id = 1, eos_id = 2, pad_id = -1;
};

struct Piece {
  std::string_view text;
  float score = 0;
  uint64_t type = 1;
};

Piece read_piece(std::string_view message, const std::string& where) {
  Piece piece;
  ProtobufReader reader(message, where);
  while (const auto field = reader.next()) {
    if (field->number == 1) piece.text = field->bytes;
    if (field->number == 2) piece.score = std::bit_cast<float>(static_cast<uint32_t>(field->value));
    if (field->number == 3) piece.type = field->value;
  }
  return piece;
}

Trainer read_trainer(std::string_view message, const std::string& where) {
  Trainer trainer;
  ProtobufReader reader(message, where);
  while (const auto field = reader.next()) {
    const auto id = static_cast<int32_t>(static_cast<uint32_t>(field->value));
    switch (field->number) {
      case 3:
        trainer.model_type = field->value;
        break;
      case 24:
        trainer.whitespace_as_suffix = field->value != 0;
        break;
      case 35:
        trainer.byte_fallback = field->value != 0;
        break;
      case 41:
        trainer.bos_id = id;
        break;
      case 42:
        trainer.eos_id = id;
        break;
      case 43:
        trainer.pad_id = id;
        break;
      default:
        break;
    }
  }
  return trainer;
}

void read_normalizer(std::string_view message, TokenizerSpec* spec, const std::string& where) {
  ProtobufReader reader(message, where);
  while (const auto field = reader.next()) {
    switch (field->number) {
      case 2:
        spec->charsmap = field->bytes;
        break;
      case 3:
        spec->rules->adds_dummy_prefix = field->value != 0;
        break;
      case 4:
        spec->rules->removes_extra_spaces = field->value != 0;
        break;
      case 5:
        spec->rules->escapes_spaces = field->value != 0;
        break;
      default:
        break;
    }
  }
}

void add_piece(const Piece& piece, TokenizerSpec* spec, const std::string& where) {
  const size_t id = spec->tokens.size();
  if (piece.type < 1 || piece.type > 6 || id >= kMaxTokenId) {
    fail(ErrorKind::bad_file, "{}: piece {} has type {}, expected 1 to 6 of at most {} pieces",
         where, id, piece.type, kMaxTokenId);
  }
  const auto type = static_cast<TokenType>(piece.type - 1);  // TokenType is in its order, from 0
  if (type == TokenType::unknown) {
    if (spec->unk_id >= 0) {
      fail(ErrorKind::bad_file, "{}: pieces {} and {} are both the unknown one", where,
           spec->unk_id, id);
    }
    spec->unk_id = static_cast<int32_t>(id);
  }
  if (type == TokenType::user_defined) spec->rules->symbols.push_back(static_cast<int32_t>(id));
  spec->tokens.emplace_back(piece.text);
  spec->types.push_back(type);
  spec->scores.push_back(piece.score);
}

void use_trainer(const Trainer& trainer, TokenizerSpec* spec, const std::string& where) {
  if (trainer.model_type == kUnigram) {
    spec->kind = TokenizerKind::unigram;
    spec->unigram_scores.assign(spec->scores.begin(), spec->scores.end());
    spec->scores.clear();
  } else if (trainer.model_type == kBpe) {
    spec->kind = TokenizerKind::sentencepiece;
    const auto unused = std::ranges::find(spec->types, TokenType::unused);
    if (unused != spec->types.end()) {
      fail(ErrorKind::bad_file,
           "{}: a BPE model with unused pieces (piece {}) is not supported by this version", where,
           unused - spec->types.begin());
    }
  } else {
    fail(ErrorKind::bad_file,
         "{}: a model of type {} is not supported by this version (supported: 1 Unigram, 2 BPE)",
         where, trainer.model_type);
  }
  if (spec->unk_id < 0) fail(ErrorKind::bad_file, "{}: no piece is the unknown one", where);
  spec->rules->space_is_suffix = trainer.whitespace_as_suffix;
  spec->rules->falls_back_to_bytes = trainer.byte_fallback;
  const auto num_bytes = std::ranges::count(spec->types, TokenType::byte);
  if (num_bytes != (trainer.byte_fallback ? 256 : 0)) {
    fail(ErrorKind::bad_file, "{}: found {} byte pieces, expected {}", where, num_bytes,
         trainer.byte_fallback ? 256 : 0);
  }
  const auto known = [&](int32_t id) {
    return id >= 0 && static_cast<size_t>(id) < spec->tokens.size() ? id : -1;
  };
  spec->bos_id = known(trainer.bos_id);
  spec->eos_id = known(trainer.eos_id);
  spec->pad_id = known(trainer.pad_id);
}

// A token of tokenizer_config.json or added_tokens.json: one of the model's, or the next new one.
void add_token(int32_t id, const std::string& text, bool special, const AddedToken& flags,
               TokenizerSpec* spec, const std::string& where) {
  const auto at = static_cast<size_t>(id);
  if (at > spec->tokens.size() || (at < spec->tokens.size() && spec->tokens[at] != text)) {
    fail(ErrorKind::bad_file, "{}: added token {} has id {}, which is {}", where, quote(text), id,
         at < spec->tokens.size() ? quote(spec->tokens[at]) : "beyond the next free one");
  }
  if (at == spec->tokens.size()) {
    spec->tokens.push_back(text);
    spec->types.push_back(TokenType::normal);
    if (!spec->scores.empty()) spec->scores.push_back(0);
    if (!spec->unigram_scores.empty()) spec->unigram_scores.push_back(0);
  }
  if (id != spec->unk_id) {
    spec->types[at] = special ? TokenType::control : TokenType::user_defined;
  }
  std::erase(spec->rules->symbols, id);
  if (has_flags(flags)) spec->added.push_back(flags);
}

struct NewToken {
  std::string text;
  bool special;
  AddedToken flags;
};

std::map<int32_t, NewToken> added_tokens(const std::filesystem::path& dir, const SortedJson& config,
                                         const std::string& where) {
  std::map<int32_t, NewToken> tokens;
  const std::filesystem::path list = dir / "added_tokens.json";
  if (std::filesystem::exists(list)) {
    const SortedJson json = read_json_object(list);
    for (auto it = json.begin(); it != json.end(); ++it) {
      const int32_t id = token_id(it.value(), it.key(), list.string());
      tokens[id] = {it.key(), true, {.id = id}};
    }
  }
  const SortedJson& decoder = member_or_null(config, "added_tokens_decoder");
  for (auto it = decoder.begin(); decoder.is_object() && it != decoder.end(); ++it) {
    const SortedJson& content = required_member(it.value(), "content", where);
    const std::string& key = it.key();
    if (!content.is_string() || key.empty() || key.size() > 8 ||
        key.find_first_not_of("0123456789") != std::string::npos) {
      fail(ErrorKind::bad_file, "{}: added token {} is {}, expected an id and a text", where,
           quote(key), printed(it.value()));
    }
    const int32_t id = std::stoi(key);
    tokens[id] = {content, member_or_null(it.value(), "special") == true,
                  added_token_flags(it.value(), id)};
  }
  return tokens;
}

}  // namespace

TokenizerSpec parse_sentencepiece_model(std::string_view bytes, const std::string& where) {
  TokenizerSpec spec;
  spec.rules.emplace();
  Trainer trainer;
  ProtobufReader reader(bytes, where);
  while (const auto field = reader.next()) {
    if (field->number <= 3 && !field->is_bytes) {
      fail(ErrorKind::bad_file, "{}: field {} is a number, expected a message", where,
           field->number);
    }
    if (field->number == 1) add_piece(read_piece(field->bytes, where), &spec, where);
    if (field->number == 2) trainer = read_trainer(field->bytes, where);
    if (field->number == 3) read_normalizer(field->bytes, &spec, where);
  }
  if (spec.tokens.empty()) {
    fail(ErrorKind::bad_file, "{}: not a SentencePiece model: it has no pieces", where);
  }
  use_trainer(trainer, &spec, where);
  spec.strips_leading_space = spec.rules->adds_dummy_prefix && !spec.rules->space_is_suffix;
  return spec;
}

TokenizerSpec read_sentencepiece_model(const std::filesystem::path& path) {
  return parse_sentencepiece_model(read_text_file(path, kMaxFileBytes), path.string());
}

TokenizerSpec read_sentencepiece_folder(const std::filesystem::path& dir) {
  const std::filesystem::path path = dir / "tokenizer.model";
  TokenizerSpec spec = read_sentencepiece_model(path);
  const std::filesystem::path config_path = dir / "tokenizer_config.json";
  SortedJson config = SortedJson::object();
  if (std::filesystem::exists(config_path)) config = read_json_object(config_path);
  for (const auto& [id, token] : added_tokens(dir, config, config_path.string())) {
    add_token(id, token.text, token.special, token.flags, &spec, path.string());
  }
  spec.add_bos = spec.bos_id >= 0;
  spec.rules->prefix_first_only = member_or_null(config, "legacy") != true;
  if (member_or_null(config, "add_prefix_space") == false) {
    spec.rules->adds_dummy_prefix = spec.strips_leading_space = false;
  }
  read_tokenizer_config(dir, config, &spec);
  return spec;
}

}  // namespace tandem
