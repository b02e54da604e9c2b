#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "base/utf8.h"
#include "text/utf8_replace.h"
#include "text/vocabulary.h"

namespace tandem {
namespace {

// Tokens of one byte each and a few longer ones; 264 is a control token.
TokenizerSpec byte_spec() {
  TokenizerSpec spec;
  spec.pre_tokenizer = "smollm";
  for (int b = 0; b < 256; ++b) {
    spec.tokens.emplace_back();
    utf8_append(spec.tokens.back(), byte_stand_ins()[static_cast<size_t>(b)]);
  }
  for (const char* token : {"ab", "abc", "stop", "END", "En", "dE", "xyz", "zEN"}) {
    spec.tokens.push_back(token);
  }
  spec.types.assign(spec.tokens.size(), TokenType::normal);
  spec.tokens.push_back("<|end|>");
  spec.types.push_back(TokenType::control);
  spec.merges = {{"a", "b"}};
  return spec;
}

std::string stream(const Tokenizer& tokenizer, const std::string& bytes,
                   std::vector<std::string> stops = {}) {
  Detokenizer detokenizer(tokenizer, std::move(stops));
  std::string text;
  for (const char c : bytes) {
    const std::string piece = detokenizer.push(static_cast<uint8_t>(c));
    EXPECT_TRUE(utf8_valid(piece)) << quote(bytes);
    text += piece;
  }
  return text + detokenizer.finish();
}

std::string replaced(std::string_view bytes) {
  std::string text;
  append_replacing(bytes, true, text);
  return text;
}

TEST(Detokenizer, GivesWholeCharacters) {
  const Tokenizer tokenizer(byte_spec());
  Detokenizer detokenizer(tokenizer);
  EXPECT_EQ(detokenizer.push('a'), "a");
  EXPECT_EQ(detokenizer.push(0xE2), "");
  EXPECT_EQ(detokenizer.push(264), "");  // a control token in between adds nothing
  EXPECT_EQ(detokenizer.push(0x82), "");
  EXPECT_EQ(detokenizer.push(0xAC), "\u20AC");
  EXPECT_EQ(detokenizer.push(0xF0), "");
  EXPECT_EQ(detokenizer.finish(), "\uFFFD");
}

TEST(Detokenizer, ReplacesAsPythonDoes) {
  // bytes.decode(errors="replace")
  EXPECT_EQ(replaced("\xE2\x82"
                     "A"),
            "\uFFFDA");
  EXPECT_EQ(replaced("\xE2"
                     "A"),
            "\uFFFDA");
  EXPECT_EQ(replaced("\xF0\x80\x80\x41"), "\uFFFD\uFFFD\uFFFDA");
  EXPECT_EQ(replaced("\xF0\x90\x80"
                     "A"),
            "\uFFFDA");
  EXPECT_EQ(replaced("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(replaced("\xC0\xAF\xFF"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(replaced("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(replaced("\xF1\x80\xE2\x82"), "\uFFFD\uFFFD");
}

TEST(Detokenizer, PiecesJoinToTheWholeForRandomBytes) {
  const Tokenizer tokenizer(byte_spec());
  Random random(7);
  constexpr uint8_t kBytes[] = {'a',  0x80, 0x90, 0x9F, 0xA0, 0xBF, 0xC1,
                                0xC3, 0xE0, 0xE2, 0xED, 0xF0, 0xF4, 0xF5};
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    for (uint64_t i = random.below(12); i > 0; --i) {
      bytes += static_cast<char>(kBytes[random.below(std::size(kBytes))]);
    }
    EXPECT_EQ(stream(tokenizer, bytes), replaced(bytes)) << quote(bytes);
  }
}

TEST(StopStrings, AreCutAcrossTokensWithoutALeak) {
  const Tokenizer tokenizer(byte_spec());
  Detokenizer detokenizer(tokenizer, {"abcEND"});
  EXPECT_EQ(detokenizer.push(256), "");    // ab
  EXPECT_EQ(detokenizer.push(257), "ab");  // abc: the first ab is certain, this one is not
  EXPECT_EQ(detokenizer.push('E'), "");
  EXPECT_EQ(detokenizer.push('x'), "abcEx");  // a false alarm
  EXPECT_EQ(detokenizer.push(257), "");
  EXPECT_FALSE(detokenizer.stopped());
  EXPECT_EQ(detokenizer.push(259), "");
  EXPECT_TRUE(detokenizer.stopped());
  EXPECT_EQ(detokenizer.push('a'), "");
  EXPECT_EQ(detokenizer.finish(), "");
}

TEST(StopStrings, AgreeWithASearchOfTheWholeText) {
  const Tokenizer tokenizer(byte_spec());
  Random random(11);
  for (int round = 0; round < 3000; ++round) {
    std::string text, stop;
    for (int i = 0; i < 16; ++i) text += "ab"[random.below(2)];
    for (uint64_t i = random.below(5) + 1; i > 0; --i) stop += "ab"[random.below(2)];
    EXPECT_EQ(stream(tokenizer, text, {stop}), text.substr(0, text.find(stop)))
        << text << " " << stop;
  }
}

TEST(StopStrings, OfSeveralTheFirstToEndCountsAndTheLongestOfThose) {
  const Tokenizer tokenizer(byte_spec());
  EXPECT_EQ(stream(tokenizer, "xabcdef", {"abcde", "bc"}), "xa");
  EXPECT_EQ(stream(tokenizer, "xabcdef", {"c", "abc"}), "x");
  EXPECT_EQ(stream(tokenizer, "x\u20ACy", {"\u20AC"}), "x");
  EXPECT_EQ(stream(tokenizer, "x\xE2\x82", {"\uFFFD"}), "x");
  EXPECT_EQ(stream(tokenizer, "xab", {"abc"}), "xab");  // an unfinished one is text
}

TEST(StopStrings, ALongOneCostsNoMoreThanItsLength) {
  const Tokenizer tokenizer(byte_spec());
  const std::string text(200'000, 'a');
  EXPECT_EQ(stream(tokenizer, text, {std::string(1'000'000, 'a')}), text);
}

TEST(StopStrings, AreChecked) {
  const Tokenizer tokenizer(byte_spec());
  for (const std::vector<std::string>& stops :
       {std::vector<std::string>{""}, {"\xFF"}, {"a", "b", "c", "d", "e"}}) {
    try {
      const Detokenizer detokenizer(tokenizer, stops);
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind, ErrorKind::usage);
    }
  }
}

TEST(LeadingSpace, IsDroppedOnceAndKeptInAContinuation) {
  TokenizerSpec spec;
  spec.kind = TokenizerKind::sentencepiece;
  spec.strips_leading_space = true;
  spec.tokens = {"<unk>", "<s>", "\u2581", "\u2581a"};
  spec.types = {TokenType::unknown, TokenType::control, TokenType::normal, TokenType::normal};
  spec.scores = {0, 0, 0, 0};
  spec.unk_id = 0;
  const Tokenizer tokenizer(spec);
  Detokenizer whole(tokenizer), continued(tokenizer, {}, true);
  EXPECT_EQ(whole.push(1), "");
  EXPECT_EQ(whole.push(3), "a");
  EXPECT_EQ(whole.push(3), " a");
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{1, 3, 3}), "a a");
  EXPECT_EQ(continued.push(3), " a");
}

}  // namespace
}  // namespace tandem
