#include "text/jinja/lexer.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/utf8.h"
#include "text/jinja/text.h"
#include "text/jinja/work.h"

namespace tandem::jinja {
namespace {

bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_char(char c) { return is_name_start(c) || is_digit(c); }

// Line ends become \n and one at the very end goes, as Jinja's loader does.
std::string normalized(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text += source[i];
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) {
      lex_text();
      if (at_ < source_.size()) lex_tag();
    }
    add(TokenKind::end);
    return std::move(tokens_);
  }

 private:
  bool next_is(std::string_view wanted) const {
    return std::string_view(source_).substr(at_).starts_with(wanted);
  }

  void advance(size_t bytes) {
    line_ +=
        static_cast<int>(std::count(source_.begin() + static_cast<int64_t>(at_),
                                    source_.begin() + static_cast<int64_t>(at_ + bytes), '\n'));
    at_ += bytes;
  }

  void skip_space() { advance(leading_space_bytes(std::string_view(source_).substr(at_))); }

  void add(TokenKind kind, std::string text = {}, int64_t number = 0) {
    tokens_.push_back({kind, std::move(text), number, 0, line_});
  }

  // Up to the next tag, which follows at at_.
  void lex_text() {
    size_t end = at_;
    while ((end = source_.find('{', end)) != std::string::npos) {
      const char mark = end + 1 < source_.size() ? source_[end + 1] : '\0';
      if (mark == '{' || mark == '%' || mark == '#') break;
      ++end;
    }
    end = std::min(end, source_.size());
    const std::string_view text = std::string_view(source_).substr(at_, end - at_);
    const size_t kept = end < source_.size() ? kept_before_tag(text, end) : text.size();
    if (kept > 0) add(TokenKind::text, std::string(text.substr(0, kept)));
    advance(text.size());
  }

  // Bytes of the text before the tag at `tag` that its sign and lstrip_blocks leave.
  size_t kept_before_tag(std::string_view text, size_t tag) const {
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (sign == '-') return text.size() - trailing_space_bytes(text);
    if (sign == '+' || source_[tag + 1] == '{') return text.size();
    const size_t newline = text.rfind('\n');
    const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
    const bool at_line_begin = line_begin > 0 || at_ == 0 || source_[at_ - 1] == '\n';
    const std::string_view indent = text.substr(line_begin);
    return at_line_begin && leading_space_bytes(indent) == indent.size() ? line_begin : text.size();
  }

  void lex_tag() {
    const int first_line = line_;
    const char mark = source_[at_ + 1];
    advance(2);
    if (mark == '#') return lex_comment(first_line);
    const bool prints = mark == '{';
    if (!prints && lex_raw(first_line)) return;
    add(prints ? TokenKind::print_begin : TokenKind::block_begin);
    if (next_is("-") || next_is("+")) advance(1);
    brackets_.clear();
    for (;;) {
      skip_space();
      if (at_ >= source_.size()) fail_at(first_line, "a tag without an end");
      // Inside brackets "}}" closes two of them.
      if (brackets_.empty() && lex_tag_end(prints ? "}}" : "%}", !prints)) break;
      lex_expression_token();
    }
    tokens_.back().kind = prints ? TokenKind::print_end : TokenKind::block_end;
  }

  // At an end of a tag: takes it with the white space that goes with it and adds a token.
  bool lex_tag_end(std::string_view end, bool trims_newline) {
    const bool signed_end = (next_is("-") || (next_is("+") && trims_newline)) &&
                            std::string_view(source_).substr(at_ + 1).starts_with(end);
    if (!signed_end && !next_is(end)) return false;
    add(TokenKind::end);
    const char sign = signed_end ? source_[at_] : '\0';
    advance(end.size() + (signed_end ? 1 : 0));
    if (sign == '-') {
      skip_space();
    } else if (sign == '\0' && trims_newline && next_is("\n")) {
      advance(1);
    }
    return true;
  }

  // The bytes of "{%", sign, `word`, "%}" at at_ + 2 on; 0 when it is no such tag.
  size_t word_tag_bytes(size_t at, std::string_view word) const {
    const std::string_view rest = std::string_view(source_).substr(at);
    size_t bytes = !rest.empty() && (rest[0] == '-' || rest[0] == '+') ? 1 : 0;
    bytes += leading_space_bytes(rest.substr(bytes));
    if (!rest.substr(bytes).starts_with(word)) return 0;
    bytes += word.size();
    bytes += leading_space_bytes(rest.substr(bytes));
    const std::string_view end = rest.substr(bytes);
    return end.starts_with("%}") || end.starts_with("-%}") || end.starts_with("+%}") ? bytes : 0;
  }

  // {% raw %} ... {% endraw %}, when at_ is within its beginning: all of it becomes text.
  bool lex_raw(int first_line) {
    const size_t bytes = word_tag_bytes(at_, "raw");
    if (bytes == 0 || source_[at_ + bytes] == '+') return false;
    advance(bytes);
    // Unlike other tags, raw keeps the line end after it.
    const bool strips = next_is("-");
    advance(strips ? 3 : 2);
    if (strips) skip_space();
    if (at_ == source_.size()) return true;  // Jinja asks for no end where there is no text either
    for (size_t end = at_; (end = source_.find("{%", end)) != std::string::npos; end += 2) {
      const size_t end_bytes = word_tag_bytes(end + 2, "endraw");
      if (end_bytes == 0) continue;
      const std::string_view text = std::string_view(source_).substr(at_, end - at_);
      const size_t kept = kept_before_tag(text, end);
      if (kept > 0) add(TokenKind::text, std::string(text.substr(0, kept)));
      advance(end + 2 + end_bytes - at_);
      lex_tag_end("%}", true);
      tokens_.pop_back();
      return true;
    }
    fail_at(first_line, "a raw block without an end");
  }

  void lex_comment(int first_line) {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) fail_at(first_line, "a comment without an end");
    // "{#-#}" has one sign, and it belongs to the beginning.
    const char sign = end > at_ + (next_is("-") || next_is("+") ? 1 : 0) ? source_[end - 1] : '\0';
    advance(end + 2 - at_);
    if (sign == '-') {
      skip_space();
    } else if (sign != '+' && next_is("\n")) {
      advance(1);
    }
  }

  void lex_expression_token() {
    const char c = source_[at_];
    if (is_name_start(c)) {
      size_t end = at_;
      while (end < source_.size() && is_name_char(source_[end])) ++end;
      add(TokenKind::name, source_.substr(at_, end - at_));
      return advance(end - at_);
    }
    if (is_digit(c)) return lex_number();
    if (c == '\'' || c == '"') return lex_string();
    for (const std::string_view op :
         {"//", "**", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%",
          "~",  "(",  ")",  "[",  "]",  "{",  "}", ",", ".", ":", "|", "="}) {
      if (!next_is(op)) continue;
      balance(op[0]);
      add(TokenKind::op, std::string(op));
      return advance(op.size());
    }
    const size_t bytes = first_char_bytes(std::string_view(source_).substr(at_));
    fail_at(line_, "{} is not known in an expression", quote(source_.substr(at_, bytes)));
  }

  void balance(char c) {
    constexpr std::string_view kOpen = "([{", kClose = ")]}";
    if (kOpen.find(c) != std::string_view::npos) brackets_ += c;
    if (brackets_.size() > kMaxNesting) fail_at(line_, "nested deeper than {}", kMaxNesting);
    const size_t row = kClose.find(c);
    if (row == std::string_view::npos) return;
    if (brackets_.empty() || brackets_.back() != kOpen[row]) fail_at(line_, "unexpected '{}'", c);
    brackets_.pop_back();
  }

  // Digits with underscores between them, from `at` on; at is moved behind them.
  std::string take_digits(size_t& at) const {
    std::string digits;
    for (; at < source_.size(); ++at) {
      const bool divides = source_[at] == '_' && !digits.empty() && at + 1 < source_.size() &&
                           is_digit(source_[at + 1]);
      if (is_digit(source_[at])) {
        digits += source_[at];
      } else if (!divides) {
        break;
      }
    }
    return digits;
  }

  void lex_number() {
    size_t at = at_;
    std::string digits = take_digits(at);
    bool is_real = false;
    const auto next_digit = [&](size_t i) { return i < source_.size() && is_digit(source_[i]); };
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';  // x.0.1 counts down two lists
    if (!after_dot && at < source_.size() && source_[at] == '.' && next_digit(at + 1)) {
      is_real = true;
      ++at;
      digits += '.';
      digits += take_digits(at);
    }
    if (!after_dot && at < source_.size() && (source_[at] == 'e' || source_[at] == 'E')) {
      const bool has_sign = at + 1 < source_.size() &&
                            std::string_view("+-").find(source_[at + 1]) != std::string_view::npos;
      if (next_digit(at + (has_sign ? 2 : 1))) {
        is_real = true;
        digits += 'e';
        if (has_sign && source_[at + 1] == '-') digits += '-';
        at += has_sign ? 2 : 1;
        digits += take_digits(at);
      }
    }
    const char *begin = digits.data(), *end = begin + digits.size();
    add(is_real ? TokenKind::real : TokenKind::integer);
    const auto error = is_real ? std::from_chars(begin, end, tokens_.back().real).ec
                               : std::from_chars(begin, end, tokens_.back().number).ec;
    if (error != std::errc()) {
      fail_at(line_, "a number that does not fit: {}", quote(digits));
    }
    advance(at - at_);
  }

  void lex_string() {
    const char delimiter = source_[at_];
    const int first_line = line_;
    std::string text;
    size_t i = at_ + 1;
    for (; i < source_.size() && source_[i] != delimiter; ++i) {
      if (source_[i] != '\\') {
        text += source_[i];
      } else {
        i = append_escape(i, text);
      }
    }
    if (i >= source_.size()) fail_at(first_line, "a string without an end");
    add(TokenKind::string, std::move(text));
    advance(i + 1 - at_);
  }

  // The escape at source_[i] (a backslash), as in Python's strings; returns where its last byte is.
  size_t append_escape(size_t i, std::string& text) {
    constexpr std::string_view kLetters = "\\'\"abfnrtv", kMeant = "\\'\"\a\b\f\n\r\t\v";
    const char c = i + 1 < source_.size() ? source_[i + 1] : '\0';
    const size_t row = kLetters.find(c);
    if (row != std::string_view::npos) {
      text += kMeant[row];
      return i + 1;
    }
    if (c == '\n') return i + 1;  // a line that goes on
    if (c == 'x') return append_number_escape(i, i + 2, 2, 16, text);
    if (c == 'u') return append_number_escape(i, i + 2, 4, 16, text);
    if (c == 'U') return append_number_escape(i, i + 2, 8, 16, text);
    if (c == 'N') fail_at(line_, "escapes by a character's name are not known");
    if (c >= '0' && c <= '7') {
      size_t digits = 1;
      const auto is_octal = [&](size_t at) {
        return at < source_.size() && source_[at] >= '0' && source_[at] <= '7';
      };
      while (digits < 3 && is_octal(i + 1 + digits)) ++digits;
      return append_number_escape(i, i + 1, digits, 8, text);
    }
    text += '\\';
    return i;
  }

  size_t append_number_escape(size_t i, size_t first, size_t digits, int base, std::string& text) {
    const char* begin = source_.data() + std::min(first, source_.size());
    const char* limit = source_.data() + std::min(first + digits, source_.size());
    uint32_t code_point = 0;
    const auto [end, error] = std::from_chars(begin, limit, code_point, base);
    const bool is_character =
        code_point < 0x110000 && (code_point < 0xD800 || code_point >= 0xE000);
    if (error != std::errc() || end != begin + digits || !is_character) {
      fail_at(line_, "escape {} is not known", quote(source_.substr(i, first - i + digits)));
    }
    utf8_append(text, code_point);
    return first + digits - 1;
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  std::string brackets_;  // open in the tag at at_
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    fail(ErrorKind::bad_file, "chat template: found {} bytes, expected at most {}", source.size(),
         kMaxSourceBytes);
  }
  if (!utf8_valid(source)) fail(ErrorKind::bad_file, "chat template: it is not UTF-8");
  return Lexer(source).run();
}

}  // namespace tandem::jinja
