#include "text/jinja_lexer.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/utf8.h"
#include "text/jinja_value.h"
#include "text/jinja_work.h"

namespace tandem::jinja {
namespace {

bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

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
    tokens_.push_back({kind, std::move(text), number, line_});
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
    add(prints ? TokenKind::print_begin : TokenKind::block_begin);
    if (next_is("-") || next_is("+")) advance(1);
    for (;;) {
      skip_space();
      if (at_ >= source_.size()) fail_at(first_line, "a tag without an end");
      if (lex_tag_end(prints ? "}}" : "%}", !prints)) break;
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
      while (end < source_.size() && (is_name_start(source_[end]) || is_digit(source_[end]))) ++end;
      add(TokenKind::name, source_.substr(at_, end - at_));
      return advance(end - at_);
    }
    if (is_digit(c)) return lex_integer();
    if (c == '\'' || c == '"') return lex_string();
    for (const std::string_view unknown : {"//", "**"}) {
      if (next_is(unknown)) fail_at(line_, "operator {} is not known", unknown);
    }
    for (const std::string_view op : {"==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "%",
                                      "~",  "(",  ")",  "[",  "]", ",", ".", ":", "|", "="}) {
      if (!next_is(op)) continue;
      add(TokenKind::op, std::string(op));
      return advance(op.size());
    }
    const size_t bytes = first_char_bytes(std::string_view(source_).substr(at_));
    fail_at(line_, "{} is not known in an expression", quote(source_.substr(at_, bytes)));
  }

  void lex_integer() {
    int64_t number = 0;
    const char* begin = source_.data() + at_;
    const auto [end, error] = std::from_chars(begin, source_.data() + source_.size(), number);
    if (error != std::errc()) fail_at(line_, "an integer above {}", INT64_MAX);
    const auto bytes = static_cast<size_t>(end - begin);
    const std::string_view rest = std::string_view(source_).substr(at_ + bytes);
    const bool is_float = rest.size() > 1 && rest[0] == '.' && is_digit(rest[1]);
    if (is_float || (!rest.empty() && is_name_start(rest[0]))) {
      fail_at(line_, "numbers other than decimal integers are not known");
    }
    add(TokenKind::integer, {}, number);
    advance(bytes);
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

  // The escape at source_[i] (a backslash); returns where its last byte is.
  size_t append_escape(size_t i, std::string& text) {
    const char c = i + 1 < source_.size() ? source_[i + 1] : '\0';
    switch (c) {
      case '\\':
      case '\'':
      case '"':
        text += c;
        return i + 1;
      case 'n':
        text += '\n';
        return i + 1;
      case 't':
        text += '\t';
        return i + 1;
      case 'r':
        text += '\r';
        return i + 1;
      case 'x':
        return append_hex_escape(i, 2, text);
      case 'u':
        return append_hex_escape(i, 4, text);
      default:
        fail_at(line_, "escape {} is not known", quote(source_.substr(i, 2)));
    }
  }

  size_t append_hex_escape(size_t i, size_t digits, std::string& text) {
    const char* begin = source_.data() + std::min(i + 2, source_.size());
    const char* limit = source_.data() + std::min(i + 2 + digits, source_.size());
    uint32_t code_point = 0;
    const auto [end, error] = std::from_chars(begin, limit, code_point, 16);
    const bool surrogate = code_point >= 0xD800 && code_point < 0xE000;
    if (error != std::errc() || end != begin + digits || surrogate) {
      fail_at(line_, "escape {} is not known", quote(source_.substr(i, 2 + digits)));
    }
    utf8_append(text, code_point);
    return i + 1 + digits;
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
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
