#include "text/tokenizer.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/utf8.h"
#include "text/byte_bpe.h"
#include "text/piece_bpe.h"
#include "text/pre_tokenizer.h"
#include "text/special_tokens.h"
#include "text/text_preparation.h"
#include "text/unigram.h"
#include "text/vocabulary.h"

namespace tandem {
namespace {

// Control tokens that end a turn or a text in the chat formats of Llama-family models.
constexpr std::string_view kEndSpellings[] = {"<|im_end|>", "<|eot_id|>", "<|end|>",
                                              "<|endoftext|>", "</s>"};

void check_id(const char* what, int32_t id, int32_t vocab_size) {
  if (id < -1 || id >= vocab_size) {
    fail(ErrorKind::bad_file, "tokenizer: {} id is {}, expected 0 to {} or none", what, id,
         vocab_size - 1);
  }
}

// The tokens that are cut out of the text as it comes, or those that are cut out of the normalized
// text and so are spelled as the normalizer spells them.
std::vector<SpecialTokens::Token> special_tokens(const TokenizerSpec& spec, bool normalized,
                                                 const TextPreparation& preparation) {
  std::vector<AddedToken> flags(spec.tokens.size());
  for (const AddedToken& added : spec.added) {
    CHECK(added.id >= 0 && static_cast<size_t>(added.id) < flags.size(), "id {}", added.id);
    flags[static_cast<size_t>(added.id)] = added;
  }
  std::vector<bool> inner(spec.tokens.size(), false);
  if (spec.rules) {
    for (const int32_t id : spec.rules->symbols) inner[static_cast<size_t>(id)] = true;
  }
  std::vector<SpecialTokens::Token> tokens;
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    const TokenType type = spec.types[id];
    if ((type != TokenType::control && type != TokenType::user_defined) || inner[id]) continue;
    if (flags[id].normalized != normalized) continue;
    std::string spelling = spec.tokens[id], no_markup;
    if (normalized) preparation.normalize(spelling, no_markup);
    if (spelling.empty()) continue;
    flags[id].id = static_cast<int32_t>(id);
    tokens.push_back({flags[id], std::move(spelling), type == TokenType::user_defined});
  }
  return tokens;
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(const TokenizerSpec& spec);

  // at_start: nothing stands before the text.
  void encode_text(std::string_view text, std::string_view is_markup, bool at_start,
                   std::vector<int32_t>& ids) const;
  void encode_normalized(std::string text, bool at_start, std::vector<int32_t>& ids) const;
  std::vector<int32_t> encode(std::string_view text, std::string_view is_markup) const;

  Vocabulary vocabulary;
  TextPreparation preparation;
  SpecialTokens special, special_normalized;
  std::optional<PreTokenizer> pre_tokenizer;  // these two: byte_bpe
  std::optional<ByteBpe> byte_bpe;
  std::optional<PieceBpe> piece_bpe;  // sentencepiece, piece_bpe
  std::optional<Unigram> unigram;     // unigram
  int32_t bos_id, eos_id;
  bool add_bos, strips_leading_space;
  std::vector<int32_t> stop_ids;
};

Tokenizer::Impl::Impl(const TokenizerSpec& spec)
    : vocabulary(spec),
      preparation(spec, vocabulary),
      special(special_tokens(spec, false, preparation)),
      special_normalized(special_tokens(spec, true, preparation)),
      bos_id(spec.bos_id),
      eos_id(spec.eos_id),
      add_bos(spec.add_bos),
      strips_leading_space(spec.strips_leading_space) {
  check_id("BOS", spec.bos_id, vocabulary.size());
  check_id("EOS", spec.eos_id, vocabulary.size());
  check_id("padding", spec.pad_id, vocabulary.size());
  check_id("unknown", spec.unk_id, vocabulary.size());
  if (add_bos && bos_id < 0) {
    fail(ErrorKind::bad_file, "tokenizer: add_bos is set, but there is no BOS id");
  }
  switch (spec.kind) {
    case TokenizerKind::byte_bpe:
      pre_tokenizer.emplace(spec.pre_tokenizer, spec.split_patterns);
      byte_bpe.emplace(spec, vocabulary);
      break;
    case TokenizerKind::sentencepiece:
    case TokenizerKind::piece_bpe:
      piece_bpe.emplace(spec, vocabulary);
      break;
    case TokenizerKind::unigram:
      unigram.emplace(spec, vocabulary);
      break;
  }
  if (eos_id >= 0) stop_ids.push_back(eos_id);
  for (const std::string_view spelling : kEndSpellings) {
    const int32_t id = vocabulary.find(spelling);
    if (id >= 0 && id != eos_id && vocabulary.type(id) == TokenType::control) {
      stop_ids.push_back(id);
    }
  }
}

void Tokenizer::Impl::encode_normalized(std::string text, bool at_start,
                                        std::vector<int32_t>& ids) const {
  text = preparation.prepare(std::move(text), at_start);
  preparation.each_word(text, [&](std::string_view word) {
    if (unigram) return unigram->encode(word, ids);
    piece_bpe->encode(word, ids);
  });
}

void Tokenizer::Impl::encode_text(std::string_view text, std::string_view is_markup, bool at_start,
                                  std::vector<int32_t>& ids) const {
  const auto to_words = [&](std::string_view part) {
    pre_tokenizer->each_word(part,
                             [&](std::string_view word) { byte_bpe->encode_word(word, ids); });
  };
  const bool splits = !special_normalized.empty();
  if (byte_bpe && !splits && preparation.normalizes_nothing(text)) return to_words(text);
  std::string normalized(text), markup(splits ? is_markup : "");
  preparation.normalize(normalized, markup);
  std::vector<SpecialTokens::Part> parts{{0, normalized.size(), -1}};
  if (splits) parts = special_normalized.split(normalized, markup);
  for (const SpecialTokens::Part& part : parts) {
    const std::string_view piece =
        std::string_view(normalized).substr(part.begin, part.end - part.begin);
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else if (byte_bpe) {
      to_words(piece);
    } else if (!piece.empty()) {
      encode_normalized(std::string(piece), at_start && part.begin == 0, ids);
    }
  }
}

std::vector<int32_t> Tokenizer::Impl::encode(std::string_view text,
                                             std::string_view is_markup) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4 + 1);
  for (const SpecialTokens::Part& part : special.split(text, is_markup)) {
    if (part.id >= 0) {
      ids.push_back(part.id);
      continue;
    }
    const size_t bytes = part.end - part.begin;
    const auto markup = is_markup.empty() ? is_markup : is_markup.substr(part.begin, bytes);
    encode_text(text.substr(part.begin, bytes), markup, part.begin == 0, ids);
  }
  return ids;
}

Tokenizer::Tokenizer(const TokenizerSpec& spec) : impl_(std::make_unique<Impl>(spec)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  return impl_->encode(text, {});
}

std::vector<int32_t> Tokenizer::encode(std::span<const TextSpan> spans) const {
  std::string text, is_markup;
  for (const TextSpan& span : spans) {
    text += span.text;
    is_markup.append(span.text.size(), span.is_markup ? 1 : 0);
  }
  return impl_->encode(text, is_markup);
}

std::vector<int32_t> Tokenizer::encode_prompt(std::string_view text) const {
  std::vector<int32_t> ids = encode(text);
  if (impl_->add_bos) ids.insert(ids.begin(), impl_->bos_id);
  return ids;
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  CHECK(id >= 0 && id < vocab_size(), "token {} of {}", id, vocab_size());
  return impl_->vocabulary.bytes(id);
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) text += token_bytes(id);
  if (adds_leading_space() && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

std::string Tokenizer::token_name(int32_t id) const {
  std::string_view rest = token_bytes(id);
  if (rest.empty()) return std::string(impl_->vocabulary.spelling(id));
  std::string name;
  while (!rest.empty()) {
    const size_t length = utf8_valid_length(rest);
    if (length == 0) {
      name += fmt::format("<0x{:02X}>", static_cast<uint8_t>(rest[0]));
    } else {
      name += rest.substr(0, length);
    }
    rest.remove_prefix(std::max<size_t>(length, 1));
  }
  return name;
}

int32_t Tokenizer::vocab_size() const { return impl_->vocabulary.size(); }
int32_t Tokenizer::bos_id() const { return impl_->bos_id; }
int32_t Tokenizer::eos_id() const { return impl_->eos_id; }
const std::vector<int32_t>& Tokenizer::stop_ids() const { return impl_->stop_ids; }
bool Tokenizer::adds_leading_space() const { return impl_->strips_leading_space; }

}  // namespace tandem
