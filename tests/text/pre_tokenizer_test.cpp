#include "text/pre_tokenizer.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "text/normalize.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace tandem {
namespace {

using Words = std::vector<std::string>;

Words words_of(const PreTokenizer& pre_tokenizer, std::string_view text) {
  Words words;
  pre_tokenizer.each_word(text, [&](std::string_view word) { words.emplace_back(word); });
  return words;
}

Words words_of(const char* name, std::string_view text) {
  return words_of(PreTokenizer(name, {}), text);
}

TEST(PreTokenizer, Llama3TakesThreeDigitsAndNewlinesBehindSigns) {
  EXPECT_EQ(words_of("llama-bpe", "I'LL pay 12345$!\n\n  now"),
            (Words{"I", "'LL", " pay", " ", "123", "45", "$!\n\n", " ", " now"}));
  EXPECT_EQ(words_of("llama-bpe", "a\t\tb \r\n x  "),
            (Words{"a", "\t", "\tb", " \r\n", " x", "  "}));
  EXPECT_EQ(words_of("llama-bpe", "'\u017Fx -x\n(y"),
            (Words{"'\u017F", "x", " -", "x", "\n", "(y"}));
}

TEST(PreTokenizer, Qwen2TakesSingleDigits) {
  EXPECT_EQ(words_of("qwen2", "x 12\u00BD."), (Words{"x", " ", "1", "2", "\u00BD", "."}));
  EXPECT_EQ(words_of("gpt-2", "x 12\u00BD."), (Words{"x", " 12\u00BD", "."}));
}

TEST(PreTokenizer, UnknownNamesAreRefused) {
  EXPECT_THROW(PreTokenizer("llama", {}), Error);
  EXPECT_THROW(PreTokenizer("", {}), Error);
}

TEST(Normalize, ComposesAndOrdersMarks) {
  EXPECT_EQ(to_nfc("e\u0301 a\u0323\u0307 \u0344"), "\u00E9 \u1EA1\u0307 \u0308\u0301");
  EXPECT_EQ(to_nfc("\u1100\u1161\u11A8"), "\uAC01");
  EXPECT_EQ(to_nfc("e\xFF\u0301"), "e\xFF\u0301");
  EXPECT_TRUE(is_surely_nfc("caf\u00E9"));
  EXPECT_FALSE(is_surely_nfc("e\u0301"));
}

TEST(Normalize, LongRunsOfMarksTakeNearlyLinearTime) {
  std::string marks = "e", ordered = "\u1EB9";
  for (int i = 0; i < 100'000; ++i) marks += "\u0301\u0323";
  for (int i = 1; i < 100'000; ++i) ordered += "\u0323";
  const std::string normalized = to_nfc(marks);  // a quadratic sort takes minutes
  EXPECT_TRUE(normalized.starts_with(ordered));
  EXPECT_EQ(normalized.size(), ordered.size() + 200'000);
}

TEST(Tokenizer, AWordThatIsATokenIsNotMergedUpToIt) {
  TokenizerSpec spec;
  spec.pre_tokenizer = "llama-bpe";
  for (int b = 0; b < 256; ++b) {
    std::string spelling;
    const uint16_t c = byte_stand_ins()[static_cast<size_t>(b)];
    if (c < 0x80) {
      spelling += static_cast<char>(c);
    } else {
      spelling += static_cast<char>(0xC0 | c >> 6);
      spelling += static_cast<char>(0x80 | (c & 0x3F));
    }
    spec.tokens.push_back(spelling);
  }
  for (const char* token : {"ab", "abc"}) spec.tokens.push_back(token);
  spec.types.assign(spec.tokens.size(), TokenType::normal);
  spec.merges = {{"a", "b"}};
  EXPECT_EQ(Tokenizer(spec).encode("abc"), (std::vector<int32_t>{256, 'c'}));
  spec.ignores_merges = true;
  EXPECT_EQ(Tokenizer(spec).encode("abc"), (std::vector<int32_t>{257}));
}

}  // namespace
}  // namespace tandem
