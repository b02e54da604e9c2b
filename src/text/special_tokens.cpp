#include "text/special_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "text/unicode_class.h"
#include "text/white_space.h"

namespace tandem {
namespace {

constexpr size_t kMaxSpecialBytes = 256;

bool begins_with_word(std::string_view text) {
  return !text.empty() && is_word_character(first_code_point(text));
}

bool is_inside_word(std::string_view text, size_t begin, size_t end) {
  return (begin > 0 && begins_with_word(last_character(text.substr(0, begin)))) ||
         begins_with_word(text.substr(end));
}

}  // namespace

SpecialTokens::SpecialTokens(std::vector<Token> tokens) : tokens_(std::move(tokens)) {
  for (const Token& token : tokens_) {
    CHECK(!token.spelling.empty(), "token {} is empty", token.flags.id);
    if (token.spelling.size() > kMaxSpecialBytes) {
      fail(ErrorKind::bad_file, "tokenizer: special token {} has {} bytes, expected at most {}",
           token.flags.id, token.spelling.size(), kMaxSpecialBytes);
    }
    const auto first = static_cast<uint8_t>(token.spelling[0]);
    starts_any_[first] = true;
    if (token.everywhere) starts_text_[first] = true;
  }
  std::ranges::stable_sort(tokens_, {}, &Token::spelling);
  const auto same = [](const Token& a, const Token& b) { return a.spelling == b.spelling; };
  tokens_.erase(std::unique(tokens_.begin(), tokens_.end(), same), tokens_.end());
}

SpecialTokens::Match SpecialTokens::longest_at(std::string_view text, std::string_view is_markup,
                                               size_t at) const {
  Match best;
  bool markup = true;  // of the bytes so far
  auto first = tokens_.begin(), last = tokens_.end();
  // The tokens that agree with the text so far are a range of the sorted list; each byte narrows
  // it.
  for (size_t length = 0; at + length < text.size() && first != last; ++length) {
    const auto byte_here = [&](const Token& token) {
      return length < token.spelling.size() ? static_cast<uint8_t>(token.spelling[length]) : -1;
    };
    const int wanted = static_cast<uint8_t>(text[at + length]);
    first = std::ranges::lower_bound(first, last, wanted, {}, byte_here);
    last = std::ranges::upper_bound(first, last, wanted, {}, byte_here);
    markup = markup && !is_markup.empty() && is_markup[at + length] != 0;
    if (first == last || first->spelling.size() != length + 1) continue;
    if (markup || first->everywhere) best = {at, at + length + 1, &*first};
  }
  return best;
}

SpecialTokens::Match SpecialTokens::find(std::string_view text, std::string_view is_markup,
                                         size_t from) const {
  for (size_t at = from; at < text.size(); ++at) {
    const bool markup = !is_markup.empty() && is_markup[at] != 0;
    const auto& starts = markup ? starts_any_ : starts_text_;
    if (!starts[static_cast<uint8_t>(text[at])]) continue;
    if (const Match match = longest_at(text, is_markup, at); match.token) return match;
  }
  return {};
}

std::vector<SpecialTokens::Part> SpecialTokens::split(std::string_view text,
                                                      std::string_view is_markup) const {
  std::vector<Part> parts;
  size_t done = 0;
  for (size_t from = 0; from < text.size();) {
    const Match match = find(text, is_markup, from);
    if (match.token == nullptr) break;
    from = match.end;
    const AddedToken& flags = match.token->flags;
    if (flags.single_word && is_inside_word(text, match.begin, match.end)) continue;
    size_t begin = match.begin, end = match.end;
    // Never over what an earlier token took: a token of white space would make that quadratic.
    if (flags.strips_left) begin = space_begin(text, done, std::max(begin, done));
    if (flags.strips_right) end = space_end(text, std::max(end, done));
    if (done < begin) parts.push_back({done, begin, -1});
    parts.push_back({begin, end, flags.id});
    done = end;
  }
  if (done < text.size()) parts.push_back({done, text.size(), -1});
  return parts;
}

}  // namespace tandem
