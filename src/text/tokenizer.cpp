#include "text/tokenizer.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/utf8.h"
#include "text/byte_bpe.h"
#include "text/normalize.h"
#include "text/pre_tokenizer.h"
#include "text/sentencepiece.h"
#include "text/special_tokens.h"
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

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(const TokenizerSpec& spec);

  void encode_segment(std::string_view text, std::vector<int32_t>& ids) const;
  std::vector<int32_t> encode(std::string_view text, std::string_view is_markup) const;

  Vocabulary vocabulary;
  SpecialTokens special;
  std::optional<PreTokenizer> pre_tokenizer;  // these two: byte_bpe
  std::optional<ByteBpe> byte_bpe;
  std::optional<SentencePiece> sentencepiece;  // sentencepiece
  int32_t bos_id, eos_id;
  bool add_bos, normalizes_nfc;
  std::vector<int32_t> stop_ids;
};

Tokenizer::Impl::Impl(const TokenizerSpec& spec)
    : vocabulary(spec),
      special(vocabulary),
      bos_id(spec.bos_id),
      eos_id(spec.eos_id),
      add_bos(spec.add_bos),
      normalizes_nfc(spec.normalizes_nfc) {
  check_id("BOS", spec.bos_id, vocabulary.size());
  check_id("EOS", spec.eos_id, vocabulary.size());
  check_id("padding", spec.pad_id, vocabulary.size());
  check_id("unknown", spec.unk_id, vocabulary.size());
  if (add_bos && bos_id < 0) {
    fail(ErrorKind::bad_file, "tokenizer: add_bos is set, but there is no BOS id");
  }
  if (spec.kind == TokenizerKind::byte_bpe) {
    pre_tokenizer.emplace(spec.pre_tokenizer);
    byte_bpe.emplace(spec, vocabulary);
  } else {
    sentencepiece.emplace(spec, vocabulary);
  }
  if (eos_id >= 0) stop_ids.push_back(eos_id);
  for (const std::string_view spelling : kEndSpellings) {
    const int32_t id = vocabulary.find(spelling);
    if (id >= 0 && id != eos_id && vocabulary.type(id) == TokenType::control) {
      stop_ids.push_back(id);
    }
  }
}

void Tokenizer::Impl::encode_segment(std::string_view text, std::vector<int32_t>& ids) const {
  if (sentencepiece) return sentencepiece->encode(text, ids);
  std::string normalized;
  if (normalizes_nfc && !is_surely_nfc(text)) text = normalized = to_nfc(text);
  while (!text.empty()) {
    const size_t bytes = pre_tokenizer->word_bytes(text);
    byte_bpe->encode_word(text.substr(0, bytes), ids);
    text.remove_prefix(bytes);
  }
}

std::vector<int32_t> Tokenizer::Impl::encode(std::string_view text,
                                             std::string_view is_markup) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4 + 1);
  for (size_t at = 0; at < text.size();) {
    const SpecialTokens::Match match = special.find(text, is_markup, at);
    encode_segment(text.substr(at, match.begin - at), ids);
    if (match.id >= 0) ids.push_back(match.id);
    at = match.end;
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
bool Tokenizer::adds_leading_space() const { return impl_->sentencepiece.has_value(); }

}  // namespace tandem
