// A place in the tokens of a template: what the parsers of statements and expressions share.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/lexer.h"
#include "text/jinja/work.h"

namespace tandem::jinja {

class TokenCursor {
 public:
  explicit TokenCursor(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  Token take() { return at_ + 1 < tokens_.size() ? std::move(tokens_[at_++]) : tokens_.back(); }

  bool next_is(TokenKind kind, std::string_view text, size_t ahead = 0) const {
    return peek(ahead).kind == kind && peek(ahead).text == text;
  }
  bool next_is_op(std::string_view op) const { return next_is(TokenKind::op, op); }
  bool next_is_word(std::string_view word) const { return next_is(TokenKind::name, word); }
  bool next_is_tag(std::string_view name) const {
    return peek().kind == TokenKind::block_begin && next_is(TokenKind::name, name, 1);
  }
  bool take_op(std::string_view op) { return next_is_op(op) && (++at_, true); }
  bool take_word(std::string_view word) { return next_is_word(word) && (++at_, true); }

  [[noreturn]] void refuse(std::string_view expected) const {
    const Token& token = peek();
    const std::string_view end = "the end of the tag";
    fail_at(token.line, "found {}, expected {}", token.text.empty() ? end : quote(token.text),
            expected);
  }
  void expect_op(std::string_view op) {
    if (!take_op(op)) refuse(op);
  }
  void expect(TokenKind kind, std::string_view what) {
    if (peek().kind != kind) refuse(what);
    ++at_;
  }
  // A name that is no word of the language.
  std::string take_name() {
    static constexpr std::string_view kReserved[] = {"and", "or",   "not",  "in", "is",
                                                     "if",  "else", "elif", "for"};
    const bool reserved = std::ranges::find(kReserved, peek().text) != std::end(kReserved);
    if (peek().kind != TokenKind::name || reserved) refuse("a name");
    return take().text;
  }

  // One level of nesting, as long as it lives.
  class Nesting {
   public:
    explicit Nesting(TokenCursor& cursor) : cursor_(cursor) {
      if (cursor_.nesting_ >= kMaxNesting) {
        fail_at(cursor_.peek().line, "nested deeper than {}", kMaxNesting);
      }
      ++cursor_.nesting_;
    }
    ~Nesting() { --cursor_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    TokenCursor& cursor_;
  };

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
};

}  // namespace tandem::jinja
