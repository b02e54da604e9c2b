// Tokenizers over characters: SentencePiece's BPE and Unigram, and tokenizer.json's.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ctime>

#include "base/error.h"
#include "text/charsmap.h"
#include "text/piece_spec.h"
#include "text/tokenizer.h"

namespace tandem {
namespace {

using Ids = std::vector<int32_t>;
using Spans = std::vector<TextSpan>;

constexpr const char* kMark = "\u2581";

TokenizerSpec bpe_json_spec() {
  TokenizerSpec spec = piece_spec(TokenizerKind::piece_bpe,
                                  {kMark, "a", "b", "ab", "\u2581a", "\u2581ab", "b\u2581"});
  spec.merges = {{"a", "b"}, {kMark, "a"}, {kMark, "ab"}, {"b", kMark}};
  spec.falls_back_to_bytes = true;
  spec.fuses_unknown = true;
  return spec;
}

TEST(PieceBpe, MergesByRankAcrossWordsOnlyWhereAMergeSaysSo) {
  TokenizerSpec spec = bpe_json_spec();
  spec.normalizer = {{NormalizerStep::Kind::prepend, "", kMark},
                     {NormalizerStep::Kind::replace, " ", kMark}};
  const Tokenizer tokenizer(spec);
  EXPECT_EQ(tokenizer.encode("ab"), Ids{264});
  EXPECT_EQ(tokenizer.encode("b b"), (Ids{259, 265, 261}));
  EXPECT_EQ(tokenizer.encode("\u00E9"), (Ids{259, 3 + 0xC3, 3 + 0xA9}));
}

TEST(PieceBpe, UnknownCharactersAreOneTokenWhereTheyAreFused) {
  TokenizerSpec spec = bpe_json_spec();
  spec.falls_back_to_bytes = false;
  EXPECT_EQ(Tokenizer(spec).encode("xya x"), (Ids{0, 260, 0}));
  spec.fuses_unknown = false;
  EXPECT_EQ(Tokenizer(spec).encode("xya"), (Ids{0, 0, 260}));
  spec.unk_id = -1;
  EXPECT_EQ(Tokenizer(spec).encode("xya"), Ids{260});
}

TEST(Metaspace, PrependsWhereItSays) {
  TokenizerSpec spec = bpe_json_spec();
  const Spans two_turns{{"ab</s>ab", true}};
  spec.metaspace = Metaspace{Metaspace::Prepend::first, false};
  EXPECT_EQ(Tokenizer(spec).encode(two_turns), (Ids{264, 2, 262}));
  EXPECT_EQ(Tokenizer(spec).encode(" ab"), Ids{264});
  spec.metaspace->prepend = Metaspace::Prepend::always;
  EXPECT_EQ(Tokenizer(spec).encode(two_turns), (Ids{264, 2, 264}));
  EXPECT_EQ(Tokenizer(spec).encode("b b"), (Ids{259, 265, 261}));
  spec.metaspace->splits = true;
  EXPECT_EQ(Tokenizer(spec).encode("b b"), (Ids{259, 261, 259, 261}));
  spec.metaspace->prepend = Metaspace::Prepend::never;
  EXPECT_EQ(Tokenizer(spec).encode(two_turns), (Ids{262, 2, 262}));
}

TEST(AddedTokens, TakeWhiteSpaceAndMindWords) {
  TokenizerSpec spec = bpe_json_spec();
  spec.tokens.insert(spec.tokens.end(), {"<r>", "<l>", "<w>"});
  spec.types.insert(spec.types.end(), 3, TokenType::user_defined);
  spec.added = {{.id = 266, .strips_right = true},
                {.id = 267, .strips_left = true},
                {.id = 268, .single_word = true}};
  const Tokenizer tokenizer(spec);
  EXPECT_EQ(tokenizer.encode("a<r> \n\u3000a"), (Ids{260, 266, 260}));
  EXPECT_EQ(tokenizer.encode("a \t<l> "), (Ids{260, 267, 3 + ' '}));
  EXPECT_EQ(tokenizer.encode("<r> <l>"), (Ids{266, 267}));
  EXPECT_EQ(tokenizer.encode("<w>").size(), 1u);
  EXPECT_EQ(tokenizer.encode("a<w>").size(), 4u);
  EXPECT_EQ(tokenizer.encode("<w>\u0301").size(), 5u);
  EXPECT_EQ(tokenizer.encode("!<w>.").size(), 3u);
}

TEST(AddedTokens, NormalizedOnesAreFoundInNormalizedMarkup) {
  TokenizerSpec spec = bpe_json_spec();
  spec.normalizer = {{NormalizerStep::Kind::replace, "A", "a"},
                     {NormalizerStep::Kind::replace, " ", kMark}};
  spec.tokens.push_back("<A B>");
  spec.types.push_back(TokenType::control);
  spec.added = {{.id = 266, .normalized = true}};
  const Tokenizer tokenizer(spec);
  EXPECT_EQ(tokenizer.encode(Spans{{"b<a B>A", true}}), (Ids{261, 266, 260}));
  EXPECT_EQ(tokenizer.encode(Spans{{"b", true}, {"<a B>", false}}).size(), 6u);
  EXPECT_EQ(tokenizer.encode(Spans{{"A", false}, {"<A B>", true}}), (Ids{260, 266}));
}

TEST(Unigram, TakesTheCutOfTheBestSum) {
  TokenizerSpec spec = piece_spec(TokenizerKind::unigram, {"ab", "b", "a", "bc", "c"});
  spec.rules = SentencePieceRules{.adds_dummy_prefix = false};
  EXPECT_EQ(Tokenizer(spec).encode("abc"), (Ids{259, 263}));  // -1-5 beats -3-4
  EXPECT_EQ(Tokenizer(spec).encode("xyabx"), (Ids{0, 259, 0}));
  spec.rules->falls_back_to_bytes = true;
  EXPECT_EQ(Tokenizer(spec).encode("xa"), (Ids{3 + 'x', 261}));
  EXPECT_EQ(Tokenizer(spec).encode("\xFF"), (Ids{3 + 0xEF, 3 + 0xBF, 3 + 0xBD}));
  spec.unigram_scores[260] = NAN;
  EXPECT_NE(message_of(spec).find("score of token 260"), std::string::npos);
  spec.unigram_scores.pop_back();
  EXPECT_NE(message_of(spec).find("263 scores"), std::string::npos);
}

TEST(Unigram, UserDefinedPiecesAlwaysWin) {
  TokenizerSpec spec = piece_spec(TokenizerKind::unigram, {kMark, "a", "b", "\u2581a", "<sb>"});
  spec.types[263] = TokenType::user_defined;
  spec.rules = SentencePieceRules{.symbols = {263}};
  EXPECT_EQ(Tokenizer(spec).encode(" a<sb>  a "), (Ids{259, 260, 263, 259, 260}));
}

TEST(SentencePieceRules, SayWhatBecomesOfSpaces) {
  TokenizerSpec spec = piece_spec(TokenizerKind::sentencepiece, {kMark, "a", "\u2581a"});
  spec.rules.emplace();
  const auto ids = [&](std::string_view text) { return Tokenizer(spec).encode(text); };
  EXPECT_EQ(ids("  a  a "), (Ids{261, 261}));
  EXPECT_EQ(ids("   "), Ids{});
  spec.rules->removes_extra_spaces = false;
  EXPECT_EQ(ids(" a "), (Ids{259, 261, 259}));
  spec.rules->space_is_suffix = true;
  EXPECT_EQ(ids("a"), (Ids{260, 259}));
  spec.rules->adds_dummy_prefix = false;
  EXPECT_EQ(ids("a"), Ids{260});
  spec.rules = SentencePieceRules{.prefix_first_only = true};
  EXPECT_EQ(Tokenizer(spec).encode(Spans{{"a</s>a", true}}), (Ids{261, 2, 260}));
}

TEST(PieceTokenizers, LongTextsTakeNearlyLinearTime) {
  TokenizerSpec scored = piece_spec(TokenizerKind::sentencepiece,
                                    {kMark, "a", "aa", "aaaa", "\u2581\u2581", "a\u2581"});
  scored.normalizer = {{NormalizerStep::Kind::replace, " ", kMark}};
  TokenizerSpec unigram =
      piece_spec(TokenizerKind::unigram, {kMark, "a", "aa", "aaaa", "\u2581\u2581"});
  unigram.rules.emplace();
  unigram.rules->removes_extra_spaces = false;
  unigram.rules->falls_back_to_bytes = true;
  for (const TokenizerSpec& spec : {scored, unigram}) {
    const Tokenizer tokenizer(spec);
    for (const char* unit : {"a", " ", "e\u0301", "a ", "\U0001F469\u200D", "\0"}) {
      // Of the processor: others may keep it from this test for long.
      const auto seconds = [&](size_t bytes) {
        std::string text;
        while (text.size() < bytes) text.append(unit, std::max<size_t>(std::strlen(unit), 1));
        const std::clock_t start = std::clock();
        EXPECT_GT(tokenizer.encode(text).size(), bytes / 16);
        return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
      };
      // 16 times the text; a quadratic walk takes 256 times as long.
      EXPECT_LT(seconds(1'600'000), 120 * std::max(seconds(100'000), 0.002)) << quote(unit);
    }
  }
}

TEST(Charsmap, RefusesWhatDoesNotFit) {
  using namespace std::literals;
  for (const std::string_view bytes :
       {"\1\0"sv, "\0\0\0\0"sv, "\4\0\0\0abc"sv, "\3\0\0\0abcdefgh\0"sv, "\xFF\xFF\xFF\xFF"sv,
        "\4\0\0\0abcd"sv, "\4\0\0\0abcdx"sv}) {
    EXPECT_THROW(Charsmap{bytes}, Error) << quote(bytes);
  }
  EXPECT_THROW(Charsmap("\4\0\0\0abcd"s + std::string(300, 'x') + '\0'), Error);
  // Offsets and values that lead out of the arrays lead nowhere.
  std::string map("\x08\0\0\0", 4);
  map += std::string(8, '\xFF') + std::string(1, '\0');
  EXPECT_EQ(Charsmap(map).longest("abc").bytes, 0u);
}

}  // namespace
}  // namespace tandem
