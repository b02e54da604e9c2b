#include <utf8proc.h>

#include <array>
#include <span>

#include "base/utf8.h"
#include "text/jinja/text.h"

namespace tandem::jinja {
namespace {

constexpr uint32_t kSigma = 0x3A3, kFinalSigma = 0x3C2, kDottedI = 0x130, kSharpS = 0x1E9E;

// 0 for a byte that is not UTF-8.
uint32_t code_point_of(std::string_view one) {
  const size_t length = utf8_valid_length(one);
  return length == 0 ? 0 : utf8_code_point(one, length);
}

uint32_t simple(utf8proc_int32_t (*map)(utf8proc_int32_t), uint32_t code_point) {
  return static_cast<uint32_t>(map(static_cast<utf8proc_int32_t>(code_point)));
}

bool is_cased(uint32_t c) {
  return simple(utf8proc_tolower, c) != c || simple(utf8proc_toupper, c) != c ||
         utf8proc_category(static_cast<utf8proc_int32_t>(c)) == UTF8PROC_CATEGORY_LL;
}

bool is_case_ignorable(uint32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return c == '\'' || c == '.' || c == ':' || c == 0xB7 || c == 0x2019 || c == 0x2018;
  }
}

// Case folding is the one mapping to several letters that utf8proc has; the others follow from it.
std::vector<uint32_t> folded(uint32_t c) {
  std::array<utf8proc_int32_t, 8> letters{};
  int boundary = 0;
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), letters.data(), letters.size(),
                              UTF8PROC_CASEFOLD, &boundary);
  return {letters.begin(), letters.begin() + std::max<utf8proc_ssize_t>(count, 0)};
}

std::vector<uint32_t> mapped(Work& work, uint32_t c, LetterCase letter_case) {
  if (letter_case == LetterCase::folded) return folded(c);
  if (letter_case == LetterCase::lower) {
    return c == kDottedI ? folded(c) : std::vector<uint32_t>{simple(utf8proc_tolower, c)};
  }
  const bool upper = letter_case == LetterCase::upper;
  const uint32_t one = simple(upper ? utf8proc_toupper : utf8proc_totitle, c);
  std::vector<uint32_t> several = folded(c);
  if (several.size() < 2 || c == kDottedI || c == kSharpS) return {one};
  if (upper) {
    for (uint32_t& letter : several) letter = simple(utf8proc_toupper, letter);
    return several;
  }
  const bool has_title = one != c && one != kSharpS;
  if (has_title || simple(utf8proc_tolower, c) != c) return {one};
  if (c == 0x149 || several.back() == 0x3B9) work.refuse("title case of U+{:04X} is not known", c);
  several[0] = simple(utf8proc_totitle, several[0]);
  return several;
}

// Whether the Sigma at starts[i] ends a word.
bool is_final_sigma(std::string_view text, std::span<const size_t> starts, size_t i) {
  size_t before = i, after = i + 1;
  while (before > 0 && is_case_ignorable(code_point_of(text.substr(starts[before - 1])))) --before;
  if (before == 0 || !is_cased(code_point_of(text.substr(starts[before - 1])))) return false;
  const size_t num_chars = starts.size() - 1;
  while (after < num_chars && is_case_ignorable(code_point_of(text.substr(starts[after])))) ++after;
  return after == num_chars || !is_cased(code_point_of(text.substr(starts[after])));
}

// case_at: the case of character i, given whether the one before it has a case.
template <typename CaseAt>
TaggedText map_letters(Work& work, const TaggedText& text, CaseAt case_at) {
  work.use_bytes(4 * text.size());
  TaggedText out;
  out.is_safe = text.is_safe;
  const std::vector<size_t> starts = char_starts(text.bytes);
  bool after_cased = false;
  for (size_t i = 0; i + 1 < starts.size(); ++i) {
    const bool markup = text.is_markup[starts[i]] != 0;
    const std::string_view one = text.view(starts[i]).substr(0, starts[i + 1] - starts[i]);
    const uint32_t c = code_point_of(one);
    const LetterCase wanted = case_at(i, after_cased);
    after_cased = is_cased(c);
    std::string letters;
    if (c == 0) {
      letters = one;
    } else if (c == kSigma && wanted == LetterCase::lower &&
               is_final_sigma(text.bytes, starts, i)) {
      utf8_append(letters, kFinalSigma);
    } else {
      for (const uint32_t letter : mapped(work, c, wanted)) utf8_append(letters, letter);
    }
    out.append(letters, markup);
  }
  return out;
}

}  // namespace

TaggedText with_case(Work& work, const TaggedText& text, LetterCase letter_case) {
  return map_letters(work, text, [=](size_t, bool) { return letter_case; });
}

TaggedText capitalized(Work& work, const TaggedText& text) {
  return map_letters(work, text,
                     [](size_t i, bool) { return i == 0 ? LetterCase::title : LetterCase::lower; });
}

TaggedText title_words(Work& work, const TaggedText& text) {
  return map_letters(work, text, [](size_t, bool after_cased) {
    return after_cased ? LetterCase::lower : LetterCase::title;
  });
}

}  // namespace tandem::jinja
