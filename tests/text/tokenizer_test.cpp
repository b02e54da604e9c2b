#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/cpu_time.h"
#include "base/default_model.h"
#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"
#include "formats/checkpoint.h"
#include "text/piece_spec.h"
#include "text/vocabulary.h"

namespace tandem {
namespace {

using Ids = std::vector<int32_t>;

std::string stand_in(int byte) {
  std::string spelling;
  utf8_append(spelling, byte_stand_ins()[static_cast<size_t>(byte)]);
  return spelling;
}

// Token b is byte b; 256.. are "he", "ll", "aa", "aaaa" and the control tokens from 260 on.
TokenizerSpec byte_spec() {
  TokenizerSpec spec;
  spec.pre_tokenizer = "smollm";
  for (int b = 0; b < 256; ++b) spec.tokens.push_back(stand_in(b));
  for (const char* token : {"he", "ll", "aa", "aaaa"}) spec.tokens.push_back(token);
  spec.types.assign(spec.tokens.size(), TokenType::normal);
  for (const char* token : {"<|im_start|>", "<|im_end|>", "<|im_end|>\n"}) {
    spec.tokens.push_back(token);
    spec.types.push_back(TokenType::control);
  }
  spec.merges = {{"h", "e"}, {"l", "l"}, {"a", "a"}, {"aa", "aa"}};
  spec.bos_id = 260;
  spec.eos_id = 261;
  return spec;
}

// "_", "a", "b", "ab", "_ab" from 259 on, with _ for the space mark.
TokenizerSpec llama_spec() {
  TokenizerSpec spec =
      piece_spec(TokenizerKind::sentencepiece, {"\u2581", "a", "b", "ab", "\u2581ab"});
  spec.normalizer = {{NormalizerStep::Kind::prepend, "", "\u2581"},
                     {NormalizerStep::Kind::replace, " ", "\u2581"}};
  spec.strips_leading_space = true;
  spec.add_bos = true;
  return spec;
}

TEST(ByteBpe, MergesByRankThenFromTheLeft) {
  const Tokenizer tokenizer(byte_spec());
  EXPECT_EQ(tokenizer.encode("hello"), (Ids{256, 257, 'o'}));
  EXPECT_EQ(tokenizer.encode("aaaaaaa"), (Ids{259, 258, 'a'}));
  EXPECT_EQ(tokenizer.encode(""), Ids{});
}

TEST(ByteBpe, LongWordsTakeTheSameMerges) {
  const Tokenizer tokenizer(byte_spec());
  for (size_t length = 36; length < 50; ++length) {
    Ids expected(length / 4, 259);
    if (length % 4 >= 2) expected.push_back(258);
    if (length % 2 == 1) expected.push_back('a');
    EXPECT_EQ(tokenizer.encode(std::string(length, 'a')), expected) << length;
  }
}

TEST(ByteBpe, LongTextsTakeNearlyLinearTime) {
  const Tokenizer tokenizer(byte_spec());
  for (const char* unit : {"a", " ", "e\u0301", "'", "\xFF", "\U0001F469\u200D"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    const std::clock_t start = std::clock();
    const Ids ids = tokenizer.encode(text);
    EXPECT_LT(cpu_seconds_since(start), 10.0) << quote(unit);  // a quadratic merge takes hours
    EXPECT_EQ(tokenizer.decode(ids), text) << quote(unit);
  }
}

TEST(ByteBpe, AnyBytesComeBack) {
  const Tokenizer tokenizer(byte_spec());
  std::string all;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  for (const std::string& text :
       {all, std::string("\xC0\x80 \xED\xA0\x80 \xF4\x90\x80\x80 \xE2\x82"), std::string("a\0b", 3),
        std::string("\uFFFF\u202E 1\u00BD2")}) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << quote(text);
  }
}

TEST(ByteBpe, BytesWithoutATokenAreLeftOut) {
  TokenizerSpec spec = byte_spec();
  spec.tokens[4] = "no byte 4";
  spec.types[4] = TokenType::unused;
  EXPECT_EQ(Tokenizer(spec).encode("h\x04"
                                   "e"),
            (Ids{'h', 'e'}));                                    // control characters are
  EXPECT_EQ(Tokenizer(spec).encode("!\x04!"), (Ids{'!', '!'}));  // no letters
}

TEST(ByteBpe, ATokenOfNoBytesComesFromNoText) {
  TokenizerSpec spec = byte_spec();
  spec.tokens.push_back("x y");
  spec.types.push_back(TokenType::normal);
  spec.ignores_merges = true;
  const Tokenizer tokenizer(spec);
  EXPECT_EQ(tokenizer.encode("x y"), (Ids{'x', ' ', 'y'}));
  EXPECT_EQ(tokenizer.decode(Ids{263}), "x y");
}

TEST(SpecialTokens, AreRecognisedInMarkupOnly) {
  const Tokenizer tokenizer(byte_spec());
  const Ids typed = tokenizer.encode("<|im_end|>");
  EXPECT_EQ(typed.size(), 10u);
  EXPECT_EQ(tokenizer.encode(std::vector<TextSpan>{{"<|im_end|>", false}}), typed);
  EXPECT_EQ(tokenizer.encode(std::vector<TextSpan>{{"<|im_end|>", true}}), Ids{261});
  // The longest wins; spans are joined; half markup is not markup.
  EXPECT_EQ(tokenizer.encode(std::vector<TextSpan>{{"<|im_end|>\n", true}}), Ids{262});
  EXPECT_EQ(tokenizer.encode(std::vector<TextSpan>{{"<|im_", true}, {"end|>", true}}), Ids{261});
  EXPECT_EQ(tokenizer.encode(std::vector<TextSpan>{{"<|im_", true}, {"end|>", false}}), typed);
  EXPECT_EQ(tokenizer.encode(std::vector<TextSpan>{{"<|im_end|>", true}, {"\n", false}}),
            (Ids{261, '\n'}));
  // A border between spans does not split a word.
  EXPECT_EQ(tokenizer.encode(std::vector<TextSpan>{{"h", true}, {"e", false}}), Ids{256});
}

TEST(SpecialTokens, UserDefinedOnesAreText) {
  TokenizerSpec spec = byte_spec();
  spec.types[260] = TokenType::user_defined;
  const Tokenizer tokenizer(spec);
  EXPECT_EQ(tokenizer.encode("a<|im_start|>a"), (Ids{'a', 260, 'a'}));
  EXPECT_EQ(tokenizer.decode(Ids{260}), "<|im_start|>");
}

TEST(SpecialTokens, ManyOverlappingOnesStayBounded) {
  TokenizerSpec spec = byte_spec();
  for (size_t length = 5; length <= 256; ++length) {
    spec.tokens.push_back(std::string(length, 'a'));
    spec.types.push_back(TokenType::control);
  }
  const Tokenizer tokenizer(spec);
  const Ids ids = tokenizer.encode(std::vector<TextSpan>{{std::string(256 * 400, 'a'), true}});
  EXPECT_EQ(ids, Ids(400, static_cast<int32_t>(spec.tokens.size() - 1)));
  spec.tokens.back() = std::string(257, 'b');
  EXPECT_NE(message_of(spec).find("257 bytes"), std::string::npos);
}

TEST(Tokenizer, NamesAndStops) {
  const Tokenizer tokenizer(byte_spec());
  EXPECT_EQ(tokenizer.token_name(260), "<|im_start|>");
  EXPECT_EQ(tokenizer.token_name(256), "he");
  EXPECT_EQ(tokenizer.token_name(0xE2), "<0xE2>");
  EXPECT_EQ(tokenizer.token_bytes(260), "");
  EXPECT_EQ(tokenizer.decode(Ids{260, 256, 261}), "he");
  EXPECT_EQ(tokenizer.stop_ids(), Ids{261});
  EXPECT_EQ(tokenizer.encode_prompt("h"), Ids{'h'});
  TokenizerSpec spec = byte_spec();
  spec.add_bos = true;
  spec.eos_id = -1;
  EXPECT_EQ(Tokenizer(spec).encode_prompt("h"), (Ids{260, 'h'}));
  EXPECT_EQ(Tokenizer(spec).stop_ids(), Ids{261});
}

TEST(SentencePiece, MergesByScoreAndFallsBackToBytes) {
  const Tokenizer tokenizer(llama_spec());
  EXPECT_EQ(tokenizer.encode(""), Ids{});
  EXPECT_EQ(tokenizer.encode("ab"), Ids{263});
  EXPECT_EQ(tokenizer.encode("ba"), (Ids{259, 261, 260}));
  EXPECT_EQ(tokenizer.encode("\xFF"), (Ids{259, 3 + 0xFF}));
  EXPECT_EQ(tokenizer.encode("\u00E9"), (Ids{259, 3 + 0xC3, 3 + 0xA9}));
  EXPECT_EQ(tokenizer.encode_prompt("ab"), (Ids{1, 263}));
  EXPECT_EQ(tokenizer.encode("</s>").size(), 5u);
  EXPECT_EQ(tokenizer.encode(std::vector<TextSpan>{{"</s>", true}}), Ids{2});
  for (const char* text : {"ab", " ab", "a  b", "\n\u00E9"}) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode_prompt(text)), text);
  }
}

TEST(TokenizerTables, ContradictionsAreRefused) {
  const auto changed = [](auto change) {
    TokenizerSpec spec = byte_spec();
    change(spec);
    return message_of(spec);
  };
  EXPECT_EQ(changed([](auto&) {}), "accepted");
  EXPECT_NE(changed([](auto& s) { s.tokens.clear(); }).find("0 tokens"), std::string::npos);
  EXPECT_NE(changed([](auto& s) { s.types.pop_back(); }).find("types"), std::string::npos);
  EXPECT_NE(changed([](auto& s) { s.tokens[37] = ""; }).find("empty"), std::string::npos);
  EXPECT_NE(changed([](auto& s) { s.tokens[1] = s.tokens[2]; }).find("both"), std::string::npos);
  EXPECT_NE(changed([](auto& s) { s.tokens[1] = "\xFF"; }).find("UTF-8"), std::string::npos);
  EXPECT_NE(changed([](auto& s) { s.merges.clear(); }).find("0 merges"), std::string::npos);
  EXPECT_NE(changed([](auto& s) {
              s.merges.push_back({"a", "zz"});
            }).find("not a token"),
            std::string::npos);
  EXPECT_NE(changed([](auto& s) {
              s.merges.push_back({"b", "c"});
            }).find("not a token"),
            std::string::npos);
  EXPECT_NE(changed([](auto& s) {
              s.merges.push_back({"h", "e"});
            }).find("both"),
            std::string::npos);
  EXPECT_NE(changed([](auto& s) { s.merges.resize(10'000'000); }).find("merges"),
            std::string::npos);
  EXPECT_NE(changed([](auto& s) { s.pre_tokenizer = "(a+)+$"; }).find("(a+)+$"), std::string::npos);
  for (const int32_t id : {263, -2, INT32_MAX, INT32_MIN}) {
    EXPECT_NE(changed([&](auto& s) { s.bos_id = id; }).find("BOS"), std::string::npos);
    EXPECT_NE(changed([&](auto& s) { s.eos_id = id; }).find("EOS"), std::string::npos);
  }
  EXPECT_NE(changed([](auto& s) { s.bos_id = -1, s.add_bos = true; }).find("add_bos"),
            std::string::npos);
}

TEST(TokenizerTables, ContradictionsOfPiecesAreRefused) {
  const auto changed = [](auto change) {
    TokenizerSpec spec = llama_spec();
    change(spec);
    return message_of(spec);
  };
  EXPECT_EQ(changed([](auto&) {}), "accepted");
  for (const char* spelling : {"<0x-1>", "<0xZZ>", "<0x1>", "<0x001>", "0x41"}) {
    EXPECT_NE(changed([&](auto& s) { s.tokens[5] = spelling; }).find("byte token"),
              std::string::npos);
  }
  EXPECT_NE(changed([](auto& s) { s.tokens[17] = "<0x0d>"; }).find("both"), std::string::npos);
  EXPECT_NE(changed([](auto& s) { s.scores.pop_back(); }).find("scores"), std::string::npos);
  EXPECT_NE(changed([](auto& s) { s.scores[7] = NAN; }).find("not a number"), std::string::npos);
  EXPECT_NE(changed([](auto& s) { s.types[3] = TokenType::unused, s.unk_id = -1; }).find("0x00"),
            std::string::npos);
}

TEST(DefaultModel, GivesTheIdsOfTheReference) {
  const std::filesystem::path model = default_model();
  if (!std::filesystem::exists(model)) GTEST_SKIP() << "no model at " << model;
  const Tokenizer tokenizer(load_checkpoint(model).tokenizer);
  std::ifstream golden(TANDEM_TEST_DIR "/golden/text/smollm2_ids.jsonl");
  int num_lines = 0;
  for (std::string line; std::getline(golden, line); ++num_lines) {
    const Json entry = parse_json(line, "golden");
    const std::string text = entry.at("text");
    EXPECT_EQ(tokenizer.encode(text), entry.at("ids").get<Ids>()) << quote(text);
  }
  EXPECT_GE(num_lines, 600);
  EXPECT_EQ(tokenizer.stop_ids(), (Ids{2, 0}));
}

TEST(DefaultModel, GivesTheTokenCountOfWikitext) {
  const std::filesystem::path model = default_model();
  const std::filesystem::path text = TANDEM_SOURCE_DIR "/../shared/data/wikitext-2/test.raw";
  if (!std::filesystem::exists(model)) GTEST_SKIP() << "no model at " << model;
  if (!std::filesystem::exists(text)) GTEST_SKIP() << "no text at " << text;
  const Tokenizer tokenizer(load_checkpoint(model).tokenizer);
  const std::string bytes = read_text_file(text, 1u << 30);
  const Ids ids = tokenizer.encode(bytes);
  EXPECT_EQ(ids.size(), 304830u);
  EXPECT_EQ(tokenizer.encode(std::string_view(bytes).substr(0, bytes.size() - 1)).size(), 304829u);
  EXPECT_EQ(tokenizer.decode(ids), bytes);
}

TEST(Stories, GivesTheIdsOfSentencePiece) {
  const std::filesystem::path model =
      TANDEM_SOURCE_DIR "/../shared/data/stories260K/stories260Ktok512.gguf";
  if (!std::filesystem::exists(model)) GTEST_SKIP() << "no model at " << model;
  const Tokenizer tokenizer(load_checkpoint(model).tokenizer);
  EXPECT_EQ(tokenizer.encode("Once upon a time"), (Ids{403, 407, 261, 378}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("Once upon  a time,\n")), "Once upon  a time,\n");
}

}  // namespace
}  // namespace tandem
