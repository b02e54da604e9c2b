#include "text/pre_tokenizer.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
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

// U+11DE0 and U+16FF6 are numbers since Unicode 17: to the step that splits digits, while the
// patterns of the same reference know Unicode 16, whose last numbers are U+1E5FA.
TEST(PreTokenizer, NumbersOfUnicode17AreSplitOffAndNoNumbersToPatterns) {
  EXPECT_EQ(words_of("llama-bpe", "\U00011DE0a1\U00016FF6"),
            (Words{"\U00011DE0a", "1", "\U00016FF6"}));
  EXPECT_EQ(words_of("llama-bpe", "\U0001E5FAa1\U0001E5FA"),
            (Words{"\U0001E5FA", "a", "1\U0001E5FA"}));
  EXPECT_EQ(words_of("gpt-2", "1\U00011DE9!"), (Words{"1", "\U00011DE9!"}));
  EXPECT_EQ(words_of("smollm", "1\U00011DE9! \U00016FF4"),
            (Words{"1", "\U00011DE9", "!", " ", "\U00016FF4"}));
}

TEST(PreTokenizer, UnknownNamesAreRefused) {
  EXPECT_THROW(PreTokenizer("llama", {}), Error);
  EXPECT_THROW(PreTokenizer("", {}), Error);
}

// The four that are matched by hand, as patterns.
const std::string kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const std::string kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

TEST(PreTokenizer, MatchesByHandWhatThePatternsMatch) {
  const std::pair<const char*, std::vector<std::string>> cases[] = {{"gpt-2", {kGpt2}},
                                                                    {"smollm", {R"(\p{N})", kGpt2}},
                                                                    {"llama-bpe", {kLlama3}},
                                                                    {"qwen2", {kQwen2}}};
  const char* parts[] = {"a",       "Z",      "\u00E9", "\u0301", "\u4E2D",     "1",   "\u00BD",
                         "\u0665",  " ",      "  ",     "\n",     "\r",         "\t",  "\u00A0",
                         "\u3000",  "\u2028", "'",      "'s",     "'LL",        "'re", "'V",
                         "'\u017F", "!",      "_",      "\u200D", "\U0001F469", ".",   "-"};
  Random random(7);
  for (const auto& [name, patterns] : cases) {
    const PreTokenizer by_hand(name, {}), by_pattern("", patterns);
    for (int i = 0; i < 20'000; ++i) {
      std::string text;
      for (uint64_t length = 1 + random.below(12); length > 0; --length) {
        text += parts[random.below(std::size(parts))];
      }
      ASSERT_EQ(words_of(by_hand, text), words_of(by_pattern, text)) << name << " " << quote(text);
    }
  }
}

TEST(PreTokenizer, CutsByEachPatternInTurn) {
  EXPECT_EQ(words_of("falcon", "a--b 12345 x"), (Words{"a", "--", "b", " ", "123", "45", " x"}));
  EXPECT_EQ(words_of("deepseek-coder", "x\n 12 y!"), (Words{"x", "\n", " ", "1", "2", " y", "!"}));
  EXPECT_EQ(words_of("qwen35", "e\u0301t\u0301!\u0301"), (Words{"e\u0301t\u0301", "!\u0301"}));
  const PreTokenizer letters("", {"[a-z]+"});
  EXPECT_EQ(words_of(letters,
                     "1ab2\xFF\xFE"
                     "c\xFF"),
            (Words{"1", "ab", "2", "\xFF\xFE", "c", "\xFF"}));
}

TEST(PreTokenizer, PatternsOutOfAFileAreRefusedOrLimited) {
  const auto compiles = [](const std::string& pattern) {
    try {
      const PreTokenizer pre_tokenizer("", {pattern});
    } catch (const Error& error) {
      EXPECT_EQ(error.kind, ErrorKind::bad_file);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_NE(compiles("(a").find("'(a'"), std::string::npos);
  EXPECT_NE(compiles("(?<=a*)b").find("(?<=a*)b"), std::string::npos);
  EXPECT_NE(compiles(R"(\p{NoSuchScript})").find("NoSuchScript"), std::string::npos);
  EXPECT_NE(compiles(std::string(70'000, 'a')).find("70000 bytes"), std::string::npos);
  EXPECT_NE(compiles(std::string(100, '(') + "a" + std::string(100, ')')).find("not supported"),
            std::string::npos);
  const PreTokenizer hostile("", {"(a+)+$"});
  const std::string text = std::string(40, 'a') + "!";
  EXPECT_THROW(words_of(hostile, text), Error);
  EXPECT_EQ(words_of(hostile, "aaaa"), (Words{"aaaa"}));
  EXPECT_EQ(words_of(PreTokenizer("", {"b*"}), "abba"), (Words{"a", "bb", "a"}));
  // A million spaces are one run that a pattern may walk back through.
  EXPECT_EQ(words_of(PreTokenizer("", {kLlama3}), std::string(1'000'000, ' ') + "x").size(), 2u);
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
