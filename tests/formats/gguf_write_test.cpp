// The container that write_gguf makes, byte by byte where llama.cpp depends on it, and tokenizers
// that no golden family has.
#include "formats/gguf_write.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "formats/gguf.h"
#include "formats/gguf_builder.h"
#include "formats/gguf_write_keys.h"
#include "formats/gguf_write_tokenizer.h"
#include "formats/piece_scores.h"
#include "formats/temporary_folder.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

// All rows as they are, in f32.
void write_f32(const Checkpoint& source, const fs::path& out) {
  const std::vector<GgufRows> plan = gguf_rows(source);
  std::vector<GgufTensorSource> tensors;
  for (const GgufRows& rows : plan) {
    tensors.push_back({rows.name, kF32, rows.N(), rows.K(), [&rows](const ByteSink& sink) {
                         std::vector<float> row(static_cast<size_t>(rows.K()));
                         for (int64_t n = 0; n < rows.N(); ++n) {
                           const auto [part, index] = rows.row(n);
                           decode_row(part->weight, index, row.data());
                           sink(std::as_bytes(std::span(row)));
                         }
                       }});
  }
  write_gguf(out, source, 0, {{"test.note", "kept"}}, tensors);
}

Checkpoint load(const TemporaryFolder& folder, const GgufBuilder& builder) {
  return load_checkpoint(folder.write("source.gguf", builder.bytes()));
}

TEST(GgufWrite, KeysAreSpelledAsTheFormatSays) {
  GgufKeys keys;
  keys.add_text("a", "xy");
  keys.add_u32("b", 7);
  keys.add_bool("c", true);
  const std::string texts[] = {"p", ""};
  keys.add_texts("d", texts);
  EXPECT_EQ(keys.count(), 4u);
  EXPECT_EQ(keys.bytes(), text("a") + text_value("xy") + text("b") + u32_value(7) + text("c") +
                              bool_value(1) + text("d") + texts_value({"p", ""}));
}

TEST(GgufWrite, TensorsBeginAtMultiplesOf32AndTheFileEndsPadded) {
  const TemporaryFolder folder;
  const Checkpoint source = load(folder, GgufBuilder::tiny());
  write_f32(source, folder.path() / "out.gguf");
  const MappedFile map(folder.path() / "out.gguf");
  EXPECT_EQ(map.bytes().size() % 32, 0u);
  const GgufFile file = parse_gguf(map.bytes(), "out");
  EXPECT_EQ(file.version, 3u);
  EXPECT_EQ(file.find("test.note")->text(), "kept");
  EXPECT_EQ(file.find("general.architecture")->text(), "llama");
  ASSERT_EQ(file.tensors.size(), source.tensors.size());
  for (const GgufTensor& tensor : file.tensors) {
    EXPECT_EQ((tensor.bytes.data() - map.bytes().data()) % 32, 0) << tensor.name;
  }
}

// A GGUF file of Llama's holds q and k interleaved: through logical rows and back, the same bytes.
TEST(GgufWrite, RowsOfAFileKeepTheirPlaces) {
  const TemporaryFolder folder;
  GgufBuilder builder = GgufBuilder::tiny();
  for (auto& tensor : builder.tensors) {
    for (size_t i = 0; i < tensor.data.size() / 4; ++i) {
      const auto value = static_cast<float>(i);
      std::memcpy(tensor.data.data() + 4 * i, &value, 4);
    }
  }
  write_f32(load(folder, builder), folder.path() / "out.gguf");
  const MappedFile map(folder.path() / "out.gguf");
  for (const GgufTensor& tensor : parse_gguf(map.bytes(), "out").tensors) {
    const std::string& expected = builder.tensor(std::string(tensor.name)).data;
    ASSERT_EQ(tensor.bytes.size(), expected.size());
    EXPECT_EQ(std::memcmp(tensor.bytes.data(), expected.data(), expected.size()), 0) << tensor.name;
  }
}

TEST(GgufWrite, SentencePieceTablesComeBack) {
  const TemporaryFolder folder;
  GgufBuilder builder = GgufBuilder::tiny();
  builder.erase("tokenizer.ggml.pre");
  builder.erase("tokenizer.ggml.merges");
  builder.set("tokenizer.ggml.model", text_value("llama"));
  builder.set("tokenizer.ggml.tokens", texts_value({"<unk>", "<s>", "</s>", "<0x41>", "a", "aa"}));
  builder.set("tokenizer.ggml.token_type",
              array_head(5, 6) + raw(2) + raw(3) + raw(3) + raw(6) + raw(1) + raw(1));
  std::string scores = array_head(6, 6);
  for (const float score : {0.f, 0.f, 0.f, 0.f, -1.f, -0.5f}) scores += raw(score);
  builder.set("tokenizer.ggml.scores", scores);
  // "None" differs from leaving the key out, which means </s>.
  builder.set("tokenizer.ggml.eos_token_id", u32_value(UINT32_MAX));
  builder.set("tokenizer.ggml.add_bos_token", bool_value(0));
  const Checkpoint source = load(folder, builder);
  ASSERT_EQ(source.tokenizer.eos_id, -1);
  write_f32(source, folder.path() / "out.gguf");
  const TokenizerSpec back = load_checkpoint(folder.path() / "out.gguf").tokenizer;
  EXPECT_EQ(back.kind, TokenizerKind::sentencepiece);
  EXPECT_EQ(back.tokens, source.tokenizer.tokens);
  EXPECT_EQ(back.types, source.tokenizer.types);
  EXPECT_EQ(back.scores, source.tokenizer.scores);
  EXPECT_EQ(back.bos_id, 1);
  EXPECT_EQ(back.eos_id, -1);
  EXPECT_EQ(back.unk_id, 0);
  EXPECT_FALSE(back.add_bos);
  EXPECT_TRUE(back.strips_leading_space);
}

TEST(GgufWrite, SentencePieceWithoutASpaceInFront) {
  TokenizerSpec spec;
  spec.kind = TokenizerKind::sentencepiece;
  spec.normalizer = {{NormalizerStep::Kind::replace, " ", "\xE2\x96\x81"}};
  GgufKeys keys;
  add_gguf_tokenizer(spec, "x", &keys);
  EXPECT_NE(keys.bytes().find(text("tokenizer.ggml.add_space_prefix") + bool_value(0)),
            std::string::npos);
}

// The message of the refusal behind what all have in front.
std::string refusal_of(const TokenizerSpec& spec) {
  GgufKeys keys;
  const std::string message = error_of([&] { add_gguf_tokenizer(spec, "x", &keys); });
  const std::string front = "exit 2: x: a GGUF file cannot describe this tokenizer to llama.cpp: ";
  const std::string merges = "exit 2: x: llama.cpp cannot merge as this tokenizer.json does: ";
  if (message.starts_with(merges)) return message.substr(merges.size());
  EXPECT_TRUE(message.starts_with(front)) << message;
  return message.substr(std::min(front.size(), message.size()));
}

TEST(GgufWriteRefuses, ByteLevelBpeThatGgufHasNoWordsFor) {
  TokenizerSpec spec;
  EXPECT_EQ(refusal_of(spec), "its pre-tokenizer has no name");
  spec.pre_tokenizer = "qwen2";
  spec.ignores_merges = true;
  EXPECT_EQ(refusal_of(spec),
            "pre-tokenizer 'qwen2' without NFC, with words that are tokens left whole");
  spec.pre_tokenizer = "gpt-2";
  spec.ignores_merges = false;
  spec.normalizes_nfc = true;
  EXPECT_EQ(refusal_of(spec),
            "pre-tokenizer 'gpt-2' after NFC, with words that are tokens merged up");
  spec.normalizes_nfc = false;
  spec.metaspace.emplace();
  EXPECT_EQ(refusal_of(spec), "a normalizer in front of byte-level BPE");
}

// One pattern has several names, which tell NFC and merging apart.
TEST(GgufWrite, NamesByteLevelBpeAsLlamaCppDoes) {
  const auto name_of = [](const char* pattern, bool nfc, bool ignores_merges) {
    TokenizerSpec spec;
    spec.pre_tokenizer = pattern;
    spec.normalizes_nfc = nfc;
    spec.ignores_merges = ignores_merges;
    GgufKeys keys;
    add_gguf_tokenizer(spec, "x", &keys);
    const std::string key = text("tokenizer.ggml.pre") + raw(uint32_t{8});
    const size_t at = keys.bytes().find(key) + key.size();
    return keys.bytes().substr(at + 8, static_cast<size_t>(keys.bytes()[at]));
  };
  EXPECT_EQ(name_of("qwen2", true, false), "qwen2");
  EXPECT_EQ(name_of("qwen2", false, false), "deepseek-r1-qwen");
  EXPECT_EQ(name_of("llama-bpe", false, true), "llama-bpe");
  EXPECT_EQ(name_of("llama-bpe", false, false), "dbrx");
  EXPECT_EQ(name_of("tekken", false, true), "tekken");
  EXPECT_EQ(name_of("smollm", false, false), "smollm");
}

// A BPE of pieces as tokenizer.json tells it: all bytes, "a", "b", "c" and what merges make.
TokenizerSpec piece_bpe(const std::vector<std::pair<std::string, std::string>>& merges) {
  TokenizerSpec spec;
  spec.kind = TokenizerKind::piece_bpe;
  spec.falls_back_to_bytes = true;
  const auto add = [&](const std::string& token, TokenType type) {
    if (std::ranges::find(spec.tokens, token) != spec.tokens.end()) return;
    spec.tokens.push_back(token);
    spec.types.push_back(type);
  };
  add("<unk>", TokenType::control);
  for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte), TokenType::byte);
  for (const char* token : {"a", "b", "c"}) add(token, TokenType::normal);
  for (const auto& [left, right] : merges) add(left + right, TokenType::normal);
  spec.merges = merges;
  spec.unk_id = 0;
  spec.normalizer = {{NormalizerStep::Kind::prepend, "", "\u2581"},
                     {NormalizerStep::Kind::replace, " ", "\u2581"}};
  return spec;
}

TEST(GgufWrite, PiecesThatMergeEarlierScoreHigher) {
  const TokenizerSpec spec = piece_bpe({{"b", "c"}, {"a", "b"}, {"ab", "c"}, {"a", "bc"}});
  const std::vector<float> scores = scores_of_merges(spec, "x");
  EXPECT_EQ(std::vector<float>(scores.begin() + 257, scores.end()),
            (std::vector<float>{0, 0, 0, 0, -1, -2}));  // a b c bc ab abc
  GgufKeys keys;
  add_gguf_tokenizer(spec, "x", &keys);
  EXPECT_NE(keys.bytes().find(text("tokenizer.ggml.model") + text_value("llama")),
            std::string::npos);
  EXPECT_NE(keys.bytes().find(text("tokenizer.ggml.add_space_prefix") + bool_value(1)),
            std::string::npos);
}

TEST(GgufWriteRefuses, MergesThatScoresCannotOrder) {
  EXPECT_EQ(refusal_of(piece_bpe({{"b", "c"}, {"a", "b"}, {"ab", "c"}})),
            "1 of the 2 ways to make 'abc' of two pieces are merges");
  EXPECT_EQ(refusal_of(piece_bpe({{"b", "c"}, {"a", "bc"}, {"a", "b"}, {"ab", "c"}})),
            "other merges stand between those that make 'abc'");
}

TEST(GgufWriteRefuses, PiecesThatLlamaCppWouldTakeOtherwise) {
  const auto refused = [](const std::function<void(TokenizerSpec*)>& spoil) {
    TokenizerSpec spec = piece_bpe({{"a", "b"}});
    spoil(&spec);
    return refusal_of(spec);
  };
  EXPECT_EQ(refused([](TokenizerSpec* s) { s->falls_back_to_bytes = false; }),
            "BPE of pieces without byte fallback, with 256 byte tokens");
  EXPECT_EQ(refused([](TokenizerSpec* s) { s->types[7] = TokenType::normal; }),
            "BPE of pieces with byte fallback, with 255 byte tokens");
  EXPECT_EQ(refused([](TokenizerSpec* s) { s->ignores_merges = true; }),
            "BPE of pieces with texts that are tokens left whole");
  EXPECT_EQ(refused([](TokenizerSpec* s) { s->normalizer.pop_back(); }),
            "SentencePiece that does more to a text than to mark its spaces");
  EXPECT_EQ(refused([](TokenizerSpec* s) { s->metaspace.emplace(); }),
            "SentencePiece that does more to a text than to mark its spaces");
  EXPECT_EQ(refused([](TokenizerSpec* s) {
              s->normalizer.clear();
              s->metaspace.emplace();
              s->tokens.back() = "a\u2581";
            }),
            "words that end at each space, and pieces that reach over one");
  EXPECT_EQ(refused([](TokenizerSpec* s) {
              s->normalizer.clear();
              s->metaspace.emplace().after_whitespace = true;
            }),
            "Metaspace behind WhitespaceSplit");
}

TokenizerSpec unigram() {
  TokenizerSpec spec;
  spec.kind = TokenizerKind::unigram;
  spec.tokens = {"<unk>", "\u2581a", "b", "[PAD3]"};
  spec.types = {TokenType::unknown, TokenType::normal, TokenType::normal, TokenType::unused};
  spec.unigram_scores = {0, -1.5, -2.5, 0};
  spec.unk_id = 0;
  spec.rules.emplace();
  spec.charsmap = "\x01\x02";
  return spec;
}

TEST(GgufWrite, UnigramWithItsRules) {
  GgufKeys keys;
  add_gguf_tokenizer(unigram(), "x", &keys);
  const auto has = [&](const std::string& key, const std::string& value) {
    return keys.bytes().find(text("tokenizer.ggml." + key) + value) != std::string::npos;
  };
  EXPECT_TRUE(has("model", text_value("t5")));
  EXPECT_TRUE(has("scores", array_head(6, 4) + raw(0.f) + raw(-1.5f) + raw(-2.5f) + raw(-1e4f)));
  EXPECT_TRUE(has("add_space_prefix", bool_value(1)));
  EXPECT_TRUE(has("remove_extra_whitespaces", bool_value(1)));
  EXPECT_TRUE(has("precompiled_charsmap", array_head(0, 2) + "\x01\x02"));
  EXPECT_TRUE(has("add_eos_token", bool_value(0)));
}

TEST(GgufWriteRefuses, UnigramThatLlamaCppWouldTakeOtherwise) {
  TokenizerSpec spec = unigram();
  spec.rules->space_is_suffix = true;
  EXPECT_EQ(refusal_of(spec),
            "Unigram that marks spaces in another way than by U+2581 in front of words");
  spec.rules.emplace().adds_dummy_prefix = false;
  EXPECT_EQ(refusal_of(spec),
            "Unigram without a space in front of a text whose other spaces are made one");
  spec.rules.reset();
  EXPECT_EQ(refusal_of(spec), "Unigram with other steps than SentencePiece's own");
  spec.metaspace.emplace();
  spec.unk_id = -1;
  EXPECT_EQ(refusal_of(spec), "Unigram without an unknown token");
}

TEST(GgufWrite, TellsWhereLlamaCppDoesOtherwise) {
  TokenizerSpec spec = piece_bpe({{"a", "b"}});
  EXPECT_TRUE(gguf_tokenizer_notes(spec).empty());
  spec.normalizer.clear();
  spec.metaspace.emplace().prepend = Metaspace::Prepend::first;
  EXPECT_EQ(gguf_tokenizer_notes(spec).size(), 2u);
  spec = unigram();
  spec.rules->falls_back_to_bytes = true;
  EXPECT_EQ(gguf_tokenizer_notes(spec),
            (std::vector<std::string>{
                "llama.cpp makes the unknown token, not bytes, of what has no piece"}));
}

TEST(GgufWrite, KeepsWhoMadeTheModelAndOnWhichTerms) {
  const TemporaryFolder folder;
  GgufBuilder builder = GgufBuilder::tiny();
  builder.set("general.license", text_value("apache-2.0"));
  builder.set("general.unheard_of", text_value("dropped"));
  write_f32(load(folder, builder), folder.path() / "out.gguf");
  const MappedFile map(folder.path() / "out.gguf");
  const GgufFile file = parse_gguf(map.bytes(), "out");
  ASSERT_NE(file.find("general.license"), nullptr);
  EXPECT_EQ(file.find("general.license")->text(), "apache-2.0");
  EXPECT_EQ(file.find("general.unheard_of"), nullptr);
}

}  // namespace
}  // namespace tandem
