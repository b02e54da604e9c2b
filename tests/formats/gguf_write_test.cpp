// The container that write_gguf makes, byte by byte where llama.cpp depends on it, and tokenizers
// that no golden family has.
#include "formats/gguf_write.h"

#include <gtest/gtest.h>

#include "formats/gguf.h"
#include "formats/gguf_builder.h"
#include "formats/gguf_write_keys.h"
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

TEST(GgufWriteRefuses, TokenizersThatGgufHasNoWordsFor) {
  const auto refused = [](const TokenizerSpec& spec) {
    GgufKeys keys;
    const std::string message = error_of([&] { add_gguf_tokenizer(spec, "x", &keys); });
    const std::string front =
        "exit 2: x: a GGUF file cannot describe this tokenizer to llama.cpp: ";
    EXPECT_TRUE(message.starts_with(front)) << message;
    return message.substr(std::min(front.size(), message.size()));
  };
  TokenizerSpec spec;
  EXPECT_EQ(refused(spec), "its pre-tokenizer has no name");
  spec.pre_tokenizer = "qwen2";
  EXPECT_EQ(refused(spec), "pre-tokenizer 'qwen2' without NFC");
  spec.pre_tokenizer = "llama-bpe";
  EXPECT_EQ(refused(spec), "pre-tokenizer 'llama-bpe' with words that are tokens merged up");
  spec.pre_tokenizer = "gpt-2";
  spec.metaspace.emplace();
  EXPECT_EQ(refused(spec), "a normalizer in front of byte-level BPE");
  spec.kind = TokenizerKind::sentencepiece;
  EXPECT_EQ(refused(spec), "SentencePiece that does more to a text than to mark its spaces");
  spec.kind = TokenizerKind::unigram;
  EXPECT_EQ(refused(spec), "Unigram");
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
