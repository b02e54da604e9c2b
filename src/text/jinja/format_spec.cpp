#include "text/jinja/format_spec.h"

#include <algorithm>
#include <cmath>

#include "text/jinja/text.h"

namespace tandem::jinja {
namespace {

constexpr int64_t kMaxWidth = 1'000'000;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string with_commas(std::string digits) {
  const size_t end = std::min(digits.find_first_of(".e"), digits.size());
  for (size_t at = end; at > 3; at -= 3) {
    digits.insert(digits.begin() + static_cast<int64_t>(at - 3), ',');
  }
  return digits;
}

std::string printf_float(const FormatSpec& spec, double number) {
  const int precision = static_cast<int>(spec.precision < 0 ? 6 : spec.precision);
  if (!std::isfinite(number)) return std::isnan(number) ? "nan" : "inf";
  switch (spec.type) {
    case 'f':
    case 'F':
      return fmt::format("{:.{}f}", number, precision);
    case 'e':
      return fmt::format("{:.{}e}", number, precision);
    case 'E':
      return fmt::format("{:.{}E}", number, precision);
    case 'g':
      return fmt::format("{:.{}g}", number, precision);
    default:
      return fmt::format("{:.{}G}", number, precision);
  }
}

// The digits of a number without its sign.
std::string digits_of(Work& work, const FormatSpec& spec, const Value& value) {
  constexpr std::string_view kFloatTypes = "fFeEgG%";
  const std::optional<double> number = as_number(value);
  if (!number) work.refuse("format {} of {}", quote({&spec.type, 1}), kind_name(value));
  if (spec.type == '%') {
    FormatSpec plain = spec;
    plain.type = 'f';
    return fmt::format("{}%", printf_float(plain, std::abs(*number) * 100));
  }
  if (kFloatTypes.find(spec.type) != std::string_view::npos) {
    return printf_float(spec, std::abs(*number));
  }
  const std::optional<int64_t> whole = as_integer(value);
  if (!whole) work.refuse("format {} of a float", quote({&spec.type, 1}));
  const uint64_t size =
      *whole < 0 ? 0 - static_cast<uint64_t>(*whole) : static_cast<uint64_t>(*whole);
  const char* prefix = spec.alternate ? "0" : "";
  switch (spec.type) {
    case 'x':
      return fmt::format("{}{:x}", spec.alternate ? "0x" : "", size);
    case 'X':
      return fmt::format("{}{:X}", spec.alternate ? "0X" : "", size);
    case 'o':
      return fmt::format("{}{}{:o}", prefix, spec.alternate ? "o" : "", size);
    case 'b':
      return fmt::format("{}{}{:b}", prefix, spec.alternate ? "b" : "", size);
    case 'd':
    case 'i':
    case 'u':
      return std::to_string(size);
    default:
      work.refuse("format {} is not known", quote({&spec.type, 1}));
  }
}

}  // namespace

int64_t take_number(Work& work, std::string_view text, size_t& at) {
  if (at >= text.size() || !is_digit(text[at])) return -1;
  int64_t number = 0;
  for (; at < text.size() && is_digit(text[at]); ++at) {
    number = number * 10 + (text[at] - '0');
    if (number > kMaxWidth) work.refuse("a format with a width above {}", kMaxWidth);
  }
  return number;
}

void append_padded(Work& work, const FormatSpec& spec, char align, std::string_view sign,
                   const TaggedText& body, TaggedText& out) {
  if (spec.align) align = spec.align;
  const int64_t used = count_chars(body.bytes) + static_cast<int64_t>(sign.size());
  const auto missing = static_cast<size_t>(std::max<int64_t>(spec.width - used, 0));
  const size_t left = align == '>' || align == '=' ? missing : align == '^' ? missing / 2 : 0;
  work.use_bytes(body.size() + missing + sign.size());
  if (align == '=') out.append(sign, true);
  out.append(std::string(left, spec.fill), true);
  if (align != '=') out.append(sign, true);
  out.append(body);
  out.append(std::string(missing - left, spec.fill), true);
}

std::string_view sign_of(const FormatSpec& spec, double number) {
  if (std::signbit(number)) return "-";
  return spec.sign ? std::string_view(&spec.sign, 1) : "";
}

void append_number(Work& work, const FormatSpec& spec, const Value& value, TaggedText& out) {
  std::string digits = digits_of(work, spec, value);
  if (spec.commas) digits = with_commas(std::move(digits));
  append_padded(work, spec, '>', sign_of(spec, *as_number(value)), TaggedText(digits, true), out);
}

void append_string(Work& work, const FormatSpec& spec, char align, const TaggedText& text,
                   TaggedText& out) {
  TaggedText body = text;
  if (spec.precision >= 0 && spec.precision < count_chars(text.bytes)) {
    body = text.substr(0, char_starts(text.bytes)[static_cast<size_t>(spec.precision)]);
  }
  append_padded(work, spec, align, "", body, out);
}

}  // namespace tandem::jinja
