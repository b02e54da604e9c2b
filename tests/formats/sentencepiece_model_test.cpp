#include "formats/sentencepiece_model.h"

#include <gtest/gtest.h>

#include <bit>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "formats/tokenizer_file.h"

namespace tandem {
namespace {

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}
std::string number(uint32_t field, uint64_t value) { return varint(field << 3) + varint(value); }
std::string text(uint32_t field, const std::string& bytes) {
  return varint(field << 3 | 2) + varint(bytes.size()) + bytes;
}
std::string real(uint32_t field, float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  std::string bytes = varint(field << 3 | 5);
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(bits >> (8 * i));
  return bytes;
}
std::string piece(const std::string& spelling, float score, uint64_t type) {
  return text(1, text(1, spelling) + real(2, score) + number(3, type));
}

std::string model(uint64_t type) {
  return piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("\u2581", -1, 1) +
         piece("a", -2.5f, 1) + piece("<sep>", 0, 4) +
         text(2, number(3, type) + number(43, UINT64_MAX) + text(99, "later")) +
         text(3, text(1, "identity") + number(4, 0));
}

TokenizerSpec parse(const std::string& bytes) { return parse_sentencepiece_model(bytes, "m"); }

std::string message_of(const std::string& bytes) {
  try {
    parse(bytes);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, ErrorKind::bad_file);
    return error.what();
  }
  return "accepted";
}

TEST(SentencePieceModel, IsRead) {
  const TokenizerSpec bpe = parse(model(2));
  EXPECT_EQ(bpe.kind, TokenizerKind::sentencepiece);
  EXPECT_EQ(bpe.tokens.size(), 6u);
  EXPECT_EQ(bpe.scores[4], -2.5f);
  EXPECT_EQ(bpe.types[5], TokenType::user_defined);
  EXPECT_EQ(bpe.rules->symbols, std::vector<int32_t>{5});
  EXPECT_FALSE(bpe.rules->removes_extra_spaces);
  EXPECT_TRUE(bpe.rules->adds_dummy_prefix);
  EXPECT_EQ(bpe.unk_id, 0);
  EXPECT_EQ(bpe.bos_id, 1);
  EXPECT_EQ(bpe.eos_id, 2);
  EXPECT_EQ(bpe.pad_id, -1);
  const TokenizerSpec unigram = parse(model(1));
  EXPECT_EQ(unigram.kind, TokenizerKind::unigram);
  EXPECT_EQ(unigram.unigram_scores[4], -2.5);
}

TEST(SentencePieceModel, EveryCutIsRefusedOrRead) {
  const std::string whole = model(1);
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) message_of(whole.substr(0, bytes));
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const int bit : {0, 3, 7}) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ 1 << bit);
      message_of(changed);
    }
  }
}

TEST(SentencePieceModel, RefusesWhatItDoesNotKnow) {
  EXPECT_NE(message_of("").find("no pieces"), std::string::npos);
  EXPECT_NE(message_of("\xFF\xFF").find("cut off"), std::string::npos);
  EXPECT_NE(message_of(std::string(11, '\xFF')).find("more than 10"), std::string::npos);
  EXPECT_NE(message_of(std::string("\x0A\x7F", 2)).find("longer"), std::string::npos);
  EXPECT_NE(message_of("\x0B").find("not known"), std::string::npos);
  EXPECT_NE(message_of(number(1, 5)).find("expected a message"), std::string::npos);
  EXPECT_NE(message_of(model(3)).find("type 3"), std::string::npos);
  EXPECT_NE(message_of(model(2) + piece("x", 0, 7)).find("type 7"), std::string::npos);
  EXPECT_NE(message_of(model(2) + piece("x", 0, 5)).find("unused"), std::string::npos);
  EXPECT_NE(message_of(model(2) + piece("x", 0, 2)).find("unknown"), std::string::npos);
  EXPECT_NE(message_of(model(2) + piece("<0x00>", 0, 6)).find("1 byte pieces"), std::string::npos);
  EXPECT_NE(message_of(piece("x", 0, 1)).find("unknown"), std::string::npos);
}

TEST(SentencePieceModel, AFolderAddsTokens) {
  const std::filesystem::path dir = std::filesystem::path(testing::TempDir()) / "spm_folder";
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  write_file_atomic(dir / "tokenizer.model", model(2));
  TokenizerSpec spec = read_folder_tokenizer(dir);
  EXPECT_TRUE(spec.add_bos);
  EXPECT_TRUE(spec.rules->prefix_first_only);
  write_file_atomic(dir / "tokenizer_config.json",
                    R"({"legacy": true, "add_bos_token": false, "eos_token": "<end>",
                        "added_tokens_decoder": {"6": {"content": "<end>", "special": true,
                        "rstrip": true}, "5": {"content": "<sep>", "special": false}}})");
  spec = read_folder_tokenizer(dir);
  EXPECT_FALSE(spec.add_bos);
  EXPECT_FALSE(spec.rules->prefix_first_only);
  EXPECT_EQ(spec.eos_id, 6);
  EXPECT_EQ(spec.types[6], TokenType::control);
  EXPECT_EQ(spec.scores.size(), 7u);
  EXPECT_TRUE(spec.rules->symbols.empty());
  ASSERT_EQ(spec.added.size(), 1u);
  EXPECT_TRUE(spec.added[0].strips_right);
  write_file_atomic(dir / "added_tokens.json", R"({"<far>": 9})");
  EXPECT_THROW(read_folder_tokenizer(dir), Error);
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace tandem
