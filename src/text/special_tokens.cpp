#include "text/special_tokens.h"

#include <algorithm>

#include "base/error.h"

namespace tandem {
namespace {

constexpr size_t kMaxSpecialBytes = 256;

}  // namespace

SpecialTokens::SpecialTokens(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    const TokenType type = vocabulary.type(id);
    if (type != TokenType::control && type != TokenType::user_defined) continue;
    const std::string_view spelling = vocabulary.spelling(id);
    if (spelling.size() > kMaxSpecialBytes) {
      fail(ErrorKind::bad_file, "tokenizer: special token {} has {} bytes, expected at most {}", id,
           spelling.size(), kMaxSpecialBytes);
    }
    sorted_.push_back(id);
    const auto first = static_cast<uint8_t>(spelling[0]);
    starts_any_[first] = true;
    if (type == TokenType::user_defined) starts_text_[first] = true;
  }
  std::ranges::sort(sorted_, {}, [&](int32_t id) { return vocabulary.spelling(id); });
}

SpecialTokens::Match SpecialTokens::longest_at(std::string_view text, std::string_view is_markup,
                                               size_t at) const {
  Match best;
  bool markup = true;  // of the bytes so far
  auto first = sorted_.begin(), last = sorted_.end();
  // The tokens that agree with the text so far are a range of the sorted list; each byte narrows
  // it.
  for (size_t length = 0; at + length < text.size() && first != last; ++length) {
    const auto byte_here = [&](int32_t id) {
      const std::string_view spelling = vocabulary_.spelling(id);
      return length < spelling.size() ? static_cast<uint8_t>(spelling[length]) : -1;
    };
    const int wanted = static_cast<uint8_t>(text[at + length]);
    first = std::ranges::lower_bound(first, last, wanted, {}, byte_here);
    last = std::ranges::upper_bound(first, last, wanted, {}, byte_here);
    markup = markup && !is_markup.empty() && is_markup[at + length] != 0;
    if (first == last || vocabulary_.spelling(*first).size() != length + 1) continue;
    if (markup || vocabulary_.type(*first) == TokenType::user_defined) {
      best = {at, at + length + 1, *first};
    }
  }
  return best;
}

SpecialTokens::Match SpecialTokens::find(std::string_view text, std::string_view is_markup,
                                         size_t from) const {
  for (size_t at = from; at < text.size(); ++at) {
    const bool markup = !is_markup.empty() && is_markup[at] != 0;
    const auto& starts = markup ? starts_any_ : starts_text_;
    if (!starts[static_cast<uint8_t>(text[at])]) continue;
    if (const Match match = longest_at(text, is_markup, at); match.id >= 0) return match;
  }
  return {text.size(), text.size(), -1};
}

}  // namespace tandem
