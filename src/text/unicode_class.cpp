#include "text/unicode_class.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <iterator>

namespace tandem {
namespace {

struct Range {
  uint32_t first, last;
  CharClass char_class;
};

// Letters and numbers of Unicode 16 that Unicode 15, all that utf8proc 2.8 knows, has not assigned.
// Asked only for code points that utf8proc calls unassigned.
constexpr Range kNewerThanUnicode15[] = {
    {0x1C89, 0x1C8A, CharClass::letter},   {0xA7CB, 0xA7CD, CharClass::letter},
    {0xA7DA, 0xA7DC, CharClass::letter},   {0x105C0, 0x105C9, CharClass::letter},
    {0x105CA, 0x105F3, CharClass::letter}, {0x10D40, 0x10D49, CharClass::number},
    {0x10D4A, 0x10D65, CharClass::letter}, {0x10D6F, 0x10D85, CharClass::letter},
    {0x10EC2, 0x10EC4, CharClass::letter}, {0x11380, 0x11389, CharClass::letter},
    {0x1138B, 0x1138B, CharClass::letter}, {0x1138E, 0x1138E, CharClass::letter},
    {0x11390, 0x113B5, CharClass::letter}, {0x113B7, 0x113B7, CharClass::letter},
    {0x113D1, 0x113D1, CharClass::letter}, {0x113D3, 0x113D3, CharClass::letter},
    {0x116D0, 0x116E3, CharClass::number}, {0x11BC0, 0x11BE0, CharClass::letter},
    {0x11BF0, 0x11BF9, CharClass::number}, {0x13460, 0x143FA, CharClass::letter},
    {0x16100, 0x1611D, CharClass::letter}, {0x16130, 0x16139, CharClass::number},
    {0x16D40, 0x16D6C, CharClass::letter}, {0x16D70, 0x16D79, CharClass::number},
    {0x18CFF, 0x18CFF, CharClass::letter}, {0x1CCF0, 0x1CCF9, CharClass::number},
    {0x1E5D0, 0x1E5ED, CharClass::letter}, {0x1E5F0, 0x1E5F0, CharClass::letter},
    {0x1E5F1, 0x1E5FA, CharClass::number}, {0x2EBF0, 0x2EE5D, CharClass::letter},
};

bool is_number_since_unicode17(uint32_t c) {
  return (c >= 0x11DE0 && c <= 0x11DE9) || (c >= 0x16FF4 && c <= 0x16FF6);
}

CharClass class_of_unassigned(uint32_t c) {
  const Range* range = std::ranges::lower_bound(kNewerThanUnicode15, c, {}, &Range::last);
  const bool found = range != std::end(kNewerThanUnicode15) && c >= range->first;
  return found ? range->char_class : CharClass::other;
}

CharClass class_by_category(uint32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::letter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return is_number_since_unicode17(c) ? CharClass::other : CharClass::number;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return CharClass::space;
    case UTF8PROC_CATEGORY_CN:
      return class_of_unassigned(c);
    default:
      return c == 0x85 ? CharClass::space : CharClass::other;
  }
}

constexpr std::array<CharClass, 128> kAsciiClass = [] {
  std::array<CharClass, 128> table{};
  for (uint32_t c = 0; c < 128; ++c) {
    const uint32_t lower = c | 0x20;
    if (lower >= 'a' && lower <= 'z') table[c] = CharClass::letter;
    if (c >= '0' && c <= '9') table[c] = CharClass::number;
    if (c == ' ' || (c >= '\t' && c <= '\r')) table[c] = CharClass::space;
  }
  return table;
}();

}  // namespace

CharClass char_class(uint32_t c) { return c < 128 ? kAsciiClass[c] : class_by_category(c); }

bool is_split_digit(uint32_t c) {
  return char_class(c) == CharClass::number || is_number_since_unicode17(c);
}

bool is_python_space(uint32_t c) {
  return char_class(c) == CharClass::space || (c >= 0x1C && c <= 0x1F);
}

bool is_word_character(uint32_t c) {
  // Letters, numbers and marks aside, Alphabetic has only these circled and squared capitals.
  if ((c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
      (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189)) {
    return true;
  }
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_NO:
      return false;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return c == 0x200C || c == 0x200D || char_class(c) == CharClass::letter ||
             char_class(c) == CharClass::number;
  }
}

}  // namespace tandem
