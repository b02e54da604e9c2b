// The methods that make or question strings: Python's, except those that give bytes or need tables
// of their own.
#include <utf8proc.h>

#include <cstring>

#include "base/utf8.h"
#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/jinja/operators.h"
#include "text/jinja/print.h"
#include "text/jinja/text.h"

namespace tandem::jinja {
namespace {

const TaggedText& self_text(const Value& self) { return *as_text(self); }

// --- stripping

// The bytes at one end of text that are characters of `chars`, or white space without `chars`.
size_t stripped_bytes(std::string_view text, const TaggedText* chars, bool at_end) {
  if (!chars) return at_end ? trailing_space_bytes(text) : leading_space_bytes(text);
  const size_t size = text.size();
  while (!text.empty()) {
    const size_t bytes = at_end ? last_char_bytes(text) : first_char_bytes(text);
    const std::string_view one = at_end ? text.substr(text.size() - bytes) : text.substr(0, bytes);
    if (chars->bytes.find(one) == std::string::npos) break;
    at_end ? text.remove_suffix(bytes) : text.remove_prefix(bytes);
  }
  return size - text.size();
}

Value stripped(Work& work, const Value& self, const Bound& args, bool left, bool right) {
  const TaggedText& text = self_text(self);
  const bool has_chars = args.has(0) && !is_none(args[0]);
  const TaggedText* chars = has_chars ? &expect_text(work, args[0], "strip") : nullptr;
  if (chars) work.use_bytes(text.size());
  const size_t begin = left ? stripped_bytes(text.bytes, chars, false) : 0;
  const size_t cut = right ? stripped_bytes(text.view(begin), chars, true) : 0;
  return part_of(work, text, begin, text.size() - cut);
}
Value strip(Work& work, const Value& self, const Bound& args) {
  return stripped(work, self, args, true, true);
}
Value lstrip(Work& work, const Value& self, const Bound& args) {
  return stripped(work, self, args, true, false);
}
Value rstrip(Work& work, const Value& self, const Bound& args) {
  return stripped(work, self, args, false, true);
}
Value removeprefix(Work& work, const Value& self, const Bound& args) {
  const TaggedText& text = self_text(self);
  const std::string& prefix = expect_text(work, args[0], "removeprefix").bytes;
  return part_of(work, text, text.bytes.starts_with(prefix) ? prefix.size() : 0, text.size());
}
Value removesuffix(Work& work, const Value& self, const Bound& args) {
  const TaggedText& text = self_text(self);
  const std::string& suffix = expect_text(work, args[0], "removesuffix").bytes;
  const size_t cut = text.bytes.ends_with(suffix) ? suffix.size() : 0;
  return part_of(work, text, 0, text.size() - cut);
}

// --- making new strings

Value join(Work& work, const Value& self, const Bound& args) {
  TaggedText out;
  out.is_safe = self_text(self).is_safe;
  bool first = true;
  for (const Value& item : items_of(work, args[0])) {
    const TaggedText& part = expect_text(work, item, "join");
    const TaggedText escaped = out.is_safe && !part.is_safe ? html_escaped(work, part) : part;
    work.use_bytes(escaped.size() + (first ? 0 : self_text(self).size()));
    if (!first) out.append(self_text(self));
    out.append(escaped);
    first = false;
  }
  return text_value(std::move(out));
}

Value padded(Work& work, const Value& self, const Bound& args, int64_t left_share) {
  const TaggedText& text = self_text(self);
  const int64_t width = expect_integer(work, args[0], "a width");
  const TaggedText fill =
      args.has(1) ? expect_text(work, args[1], "a fill") : TaggedText(" ", true);
  if (count_chars(fill.bytes) != 1) work.refuse("a fill that is not one character");
  const int64_t missing =
      std::max<int64_t>(std::max<int64_t>(width, 0) - count_chars(text.bytes), 0);
  // Python's center puts the odd one to the left when the width is odd.
  const int64_t half = missing / 2 + (missing & width & 1);
  const int64_t left = left_share == 0 ? 0 : left_share == 2 ? missing : half;
  if (missing > kMaxWorkBytes) work.use_bytes(static_cast<size_t>(kMaxWorkBytes) + 1);
  work.use_bytes(text.size() + static_cast<size_t>(missing) * fill.size());
  TaggedText out;
  out.is_safe = text.is_safe;
  for (int64_t i = 0; i < left; ++i) out.append(fill);
  out.append(text);
  for (int64_t i = left; i < missing; ++i) out.append(fill);
  return text_value(std::move(out));
}
Value ljust(Work& work, const Value& self, const Bound& args) {
  return padded(work, self, args, 0);
}
Value center(Work& work, const Value& self, const Bound& args) {
  return padded(work, self, args, 1);
}
Value rjust(Work& work, const Value& self, const Bound& args) {
  return padded(work, self, args, 2);
}

Value zfill(Work& work, const Value& self, const Bound& args) {
  const TaggedText& text = self_text(self);
  const bool has_sign = text.bytes.starts_with('-') || text.bytes.starts_with('+');
  Bound zeros;
  const int64_t width = std::max<int64_t>(expect_integer(work, args[0], "a width"), 0);
  zeros.values = {Value(width - (has_sign ? 1 : 0)), markup_value("0")};
  const Value digits = part_of(work, text, has_sign ? 1 : 0, text.size());
  const Value filled = padded(work, digits, zeros, 2);
  return has_sign ? joined(work, text.substr(0, 1), *as_text(filled)) : filled;
}

Value upper(Work& work, const Value& self, const Bound&) {
  return text_value(with_case(work, self_text(self), LetterCase::upper));
}
Value lower(Work& work, const Value& self, const Bound&) {
  return text_value(with_case(work, self_text(self), LetterCase::lower));
}
Value casefold(Work& work, const Value& self, const Bound&) {
  return text_value(with_case(work, self_text(self), LetterCase::folded));
}
Value title(Work& work, const Value& self, const Bound&) {
  return text_value(title_words(work, self_text(self)));
}
Value capitalize(Work& work, const Value& self, const Bound&) {
  return text_value(capitalized(work, self_text(self)));
}
Value format(Work& work, const Value& self, const Bound& args) {
  return brace_format(work, self_text(self), args);
}

Value replace(Work& work, const Value& self, const Bound& args) {
  const TaggedText& text = self_text(self);
  const TaggedText& old_text = expect_text(work, args[0], "replace");
  const TaggedText* new_text = &expect_text(work, args[1], "replace");
  const TaggedText escaped =
      text.is_safe && !new_text->is_safe ? html_escaped(work, *new_text) : *new_text;
  int64_t left = args.has(2) ? expect_integer(work, args[2], "replace") : -1;
  TaggedText out;
  out.is_safe = text.is_safe;
  work.use_bytes(text.size());
  size_t begin = 0;
  // Nothing is replaced by being put before each character and at the end.
  for (size_t at = 0; left != 0 && at <= text.size(); --left) {
    const size_t found = find_bytes(text.bytes, old_text.bytes, at, text.size());
    if (found == std::string_view::npos) break;
    work.use_bytes(escaped.size());
    out.append(text.substr(begin, found - begin));
    out.append(escaped);
    begin = found + old_text.size();
    at = begin;
    if (old_text.size() == 0) at += at < text.size() ? first_char_bytes(text.view(at)) : 1;
  }
  out.append(text.substr(begin, std::string::npos));
  return text_value(std::move(out));
}

// --- asking

// True when the text is not empty and every character's Unicode category is one of those.
bool all_chars(Work& work, const Value& self, bool (*wanted)(utf8proc_category_t)) {
  const TaggedText& text = self_text(self);
  work.use_bytes(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = utf8_valid_length(text.view(at));
    if (bytes == 0) return false;
    const auto c = static_cast<utf8proc_int32_t>(utf8_code_point(text.view(at), bytes));
    if (!wanted(utf8proc_category(c))) return false;
    at += bytes;
  }
  return text.size() > 0;
}
bool is_letter(utf8proc_category_t category) {
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}
bool is_number(utf8proc_category_t category) {
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}
Value isalpha(Work& work, const Value& self, const Bound&) {
  return all_chars(work, self, is_letter);
}
Value isalnum(Work& work, const Value& self, const Bound&) {
  return all_chars(work, self, [](utf8proc_category_t c) { return is_letter(c) || is_number(c); });
}
Value isdecimal(Work& work, const Value& self, const Bound&) {
  return all_chars(work, self, [](utf8proc_category_t c) { return c == UTF8PROC_CATEGORY_ND; });
}
// Superscripts and circled digits are digits too, but fractions are not: the category is the same.
Value isdigit(Work& work, const Value& self, const Bound& args) {
  const bool is_numeric = all_chars(work, self, is_number);
  const bool is_sure = std::get<bool>(isdecimal(work, self, args)) || !is_numeric;
  if (!is_sure) work.refuse("isdigit of a number that is not decimal is not known");
  return is_numeric;
}
Value isascii(Work&, const Value& self, const Bound&) {
  return std::ranges::all_of(self_text(self).bytes, [](char c) { return (c & 0x80) == 0; });
}
Value isspace(Work&, const Value& self, const Bound&) {
  const std::string& text = self_text(self).bytes;
  return !text.empty() && leading_space_bytes(text) == text.size();
}
Value islower(Work& work, const Value& self, const Bound& args) {
  const TaggedText& text = self_text(self);
  return as_text(lower(work, self, args))->bytes == text.bytes &&
         as_text(upper(work, self, args))->bytes != text.bytes;
}
Value isupper(Work& work, const Value& self, const Bound& args) {
  const TaggedText& text = self_text(self);
  return as_text(upper(work, self, args))->bytes == text.bytes &&
         as_text(lower(work, self, args))->bytes != text.bytes;
}

constexpr Builtin kTextMethods[] = {
    {"capitalize", "", capitalize},
    {"casefold", "", casefold},
    {"center", "_ _?", center},
    {"format", "* **", format},
    {"isalnum", "", isalnum},
    {"isalpha", "", isalpha},
    {"isascii", "", isascii},
    {"isdecimal", "", isdecimal},
    {"isdigit", "", isdigit},
    {"islower", "", islower},
    {"isspace", "", isspace},
    {"isupper", "", isupper},
    {"join", "_", join},
    {"ljust", "_ _?", ljust},
    {"lower", "", lower},
    {"lstrip", "_?", lstrip},
    {"removeprefix", "_", removeprefix},
    {"removesuffix", "_", removesuffix},
    {"replace", "_ _ _?", replace},
    {"rjust", "_ _?", rjust},
    {"rstrip", "_?", rstrip},
    {"strip", "_?", strip},
    {"title", "", title},
    {"upper", "", upper},
    {"zfill", "_", zfill},
};

}  // namespace

const Builtin* find_text_method(std::string_view name) {
  const Builtin* method = find_search_method(name);
  return method ? method : find_in(kTextMethods, name);
}

}  // namespace tandem::jinja
