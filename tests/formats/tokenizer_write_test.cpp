// tokenizer.json as it is written: back through the reader, and SentencePiece's merges as a list.
#include <gtest/gtest.h>

#include "base/json.h"
#include "formats/temporary_folder.h"
#include "formats/tokenizer_json.h"

namespace tandem {
namespace {

TokenizerSpec byte_level(const std::string& pre_tokenizer) {
  TokenizerSpec spec;
  spec.pre_tokenizer = pre_tokenizer;
  spec.normalizes_nfc = pre_tokenizer == "qwen2";
  spec.ignores_merges = pre_tokenizer == "llama-bpe";
  spec.tokens = {"<|end|>", "a", "b", "ab", "<tool>"};
  spec.types = {TokenType::control, TokenType::normal, TokenType::normal, TokenType::normal,
                TokenType::user_defined};
  spec.merges = {{"a", "b"}};
  spec.eos_id = 0;
  spec.chat_template = "{{ messages }}";
  return spec;
}

TokenizerSpec read_back(const TokenizerSpec& spec) {
  const TemporaryFolder folder;
  folder.write("tokenizer.json", tokenizer_json(spec));
  folder.write("tokenizer_config.json", tokenizer_config_json(spec, {}));
  return read_tokenizer_json(folder.path());
}

TEST(TokenizerWrite, ByteLevelComesBack) {
  for (const char* name : {"smollm", "gpt-2", "llama-bpe", "qwen2"}) {
    for (const bool add_bos : {false, true}) {
      TokenizerSpec spec = byte_level(name);
      spec.add_bos = add_bos;
      if (add_bos) spec.bos_id = 0;
      const TokenizerSpec back = read_back(spec);
      EXPECT_EQ(back.pre_tokenizer, name);
      EXPECT_EQ(back.normalizes_nfc, spec.normalizes_nfc) << name;
      EXPECT_EQ(back.ignores_merges, spec.ignores_merges) << name;
      EXPECT_EQ(back.tokens, spec.tokens) << name;
      EXPECT_EQ(back.types, spec.types) << name;
      EXPECT_EQ(back.merges, spec.merges) << name;
      EXPECT_EQ(back.bos_id, spec.bos_id) << name;
      EXPECT_EQ(back.eos_id, spec.eos_id) << name;
      EXPECT_EQ(back.add_bos, spec.add_bos) << name;
      EXPECT_EQ(back.chat_template, spec.chat_template) << name;
    }
  }
}

TEST(TokenizerWrite, SentencePieceMergesByScore) {
  TokenizerSpec spec;
  spec.kind = TokenizerKind::sentencepiece;
  spec.tokens = {"<unk>", "<s>", "a", "b", "ab", "ba", "aba", "<0x61>", "cd"};
  spec.types.assign(spec.tokens.size(), TokenType::normal);
  spec.types[0] = TokenType::unknown;
  spec.types[1] = TokenType::control;
  spec.types[7] = TokenType::byte;
  spec.scores = {0, 0, -5, -6, -2, -1, -3, 0, -4};
  using Kind = NormalizerStep::Kind;
  const std::string mark = "\xE2\x96\x81";
  spec.normalizer = {{Kind::prepend, "", mark}, {Kind::replace, " ", mark}};
  spec.strips_leading_space = true;
  spec.added = {{.id = 1, .strips_right = true}};
  spec.unk_id = 0;
  spec.bos_id = 1;
  spec.add_bos = true;
  const Json json = parse_json(tokenizer_json(spec), "tokenizer.json");
  // The piece of the highest score first; of the two ways to "aba" that with the longer left part.
  // "cd" has parts that are no tokens.
  EXPECT_EQ(json["model"]["merges"],
            parse_json(R"([["b","a"],["a","b"],["ab","a"],["a","ba"]])", ""));
  EXPECT_EQ(json["model"]["unk_token"], "<unk>");
  EXPECT_EQ(json["model"]["byte_fallback"], false);  // one byte of 256 is no fall-back
  EXPECT_EQ(json["normalizer"]["normalizers"][0]["prepend"], "\xE2\x96\x81");
  EXPECT_EQ(json["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>");
  ASSERT_EQ(json["added_tokens"].size(), 2u);
  EXPECT_EQ(json["added_tokens"][0]["rstrip"], false);
  EXPECT_EQ(json["added_tokens"][1]["rstrip"], true);
  EXPECT_EQ(json["decoder"]["decoders"].size(), 4u);
  spec.normalizer.erase(spec.normalizer.begin());
  spec.strips_leading_space = false;
  const Json bare = parse_json(tokenizer_json(spec), "tokenizer.json");
  EXPECT_EQ(bare["normalizer"]["type"], "Replace");
  EXPECT_EQ(bare["decoder"]["decoders"].size(), 3u);
}

TEST(TokenizerWriteRefuses, WhatTheFileCannotSay) {
  EXPECT_EQ(error_of([] { tokenizer_json(byte_level("falcon")); }),
            "exit 2: a tokenizer.json for pre-tokenizer 'falcon' cannot be written by this version "
            "(written: gpt-2, smollm, llama-bpe, qwen2, SentencePiece BPE)");
  TokenizerSpec spec = byte_level("gpt-2");
  spec.metaspace.emplace();
  EXPECT_NE(error_of([&] { tokenizer_json(spec); }).find("Metaspace"), std::string::npos);
  spec.metaspace.reset();
  spec.normalizer = {{NormalizerStep::Kind::charsmap}};
  EXPECT_NE(error_of([&] { tokenizer_json(spec); }).find("normalizer"), std::string::npos);
  spec.normalizer.clear();
  spec.kind = TokenizerKind::unigram;
  EXPECT_NE(error_of([&] { tokenizer_json(spec); }).find("this kind"), std::string::npos);
  spec.kind = TokenizerKind::byte_bpe;
  spec.tokens[2] = "a";
  EXPECT_EQ(error_of([&] { tokenizer_json(spec); }),
            "exit 3: token 'a' has two ids, which a tokenizer.json cannot say");
  spec.tokens[2] = "\xFF";
  EXPECT_NE(error_of([&] { tokenizer_json(spec); }).find("is not UTF-8"), std::string::npos);
}

}  // namespace
}  // namespace tandem
