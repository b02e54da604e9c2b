// Rows of ids from texts, documents and ids, and what is refused.
#include "compress/calibration_rows.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error_message.h"
#include "formats/temporary_folder.h"

namespace tandem {
namespace {

// A letter is a token: a, b, c, ... are 0, 1, 2, ...; "zz" is 26.
Tokenizer letters() {
  TokenizerSpec spec;
  spec.pre_tokenizer = "smollm";
  for (char c = 'a'; c <= 'z'; ++c) spec.tokens.emplace_back(1, c);
  spec.tokens.emplace_back("zz");
  spec.merges = {{"z", "z"}};
  spec.types.assign(spec.tokens.size(), TokenType::normal);
  return Tokenizer(spec);
}

class CalibrationRowsTest : public testing::Test {
 protected:
  CalibrationRows read(const std::string& name, const std::string& bytes, int64_t samples,
                       int64_t length, uint64_t seed = 0) {
    return read_calibration({folder_.write(name, bytes), samples, length, seed}, tokenizer_);
  }
  std::string refusal(const std::string& name, const std::string& bytes) {
    return message_of(ErrorKind::bad_file, [&] { read(name, bytes, 4, 4); });
  }
  TemporaryFolder folder_;
  const Tokenizer tokenizer_ = letters();
};

TEST_F(CalibrationRowsTest, WindowsOfATextAreDisjointAndDrawn) {
  const std::string text = "abcdefghijklmnopqrstuvwxyz";
  const CalibrationRows rows = read("t.txt", text, 3, 4);
  ASSERT_EQ(rows.num(), 3);
  std::vector<int32_t> firsts;
  for (int64_t n = 0; n < 3; ++n) {
    EXPECT_EQ(rows.row(n)[0] % 4, 0);
    EXPECT_EQ(rows.row(n)[3], rows.row(n)[0] + 3);
    firsts.push_back(rows.row(n)[0]);
  }
  std::ranges::sort(firsts);
  EXPECT_EQ(std::ranges::adjacent_find(firsts), firsts.end());
  EXPECT_EQ(read("t.txt", text, 3, 4).hash, rows.hash);
  EXPECT_NE(read("t.txt", text, 3, 4, 1).hash, rows.hash);
  EXPECT_TRUE(rows.note.empty());
}

TEST_F(CalibrationRowsTest, FewerWindowsThanAskedForAreSaid) {
  const CalibrationRows rows = read("t.txt", "abcdefghij", 8, 4);
  EXPECT_EQ(rows.num(), 2);
  EXPECT_NE(rows.note.find("the 2 windows of 4 tokens it has, not on 8"), std::string::npos);
}

TEST_F(CalibrationRowsTest, DocumentsAndIds) {
  const CalibrationRows rows =
      read("d.jsonl", "{\"text\": \"abcdefgh\"}\n\n{\"text\": \"ab\"}\n{\"input_ids\": [5, 6, 7, 8, 9]}\n", 4, 4);
  ASSERT_EQ(rows.num(), 2);
  for (int64_t n = 0; n < 2; ++n) EXPECT_EQ(rows.row(n)[3], rows.row(n)[0] + 3);
  // Rows of that very length: as they are, in their order.
  const CalibrationRows ids = read("i.jsonl", "[1, 2, 3, 4]\n[9, 8, 7, 6]\n[0, 0, 0, 1]\n", 2, 4, 5);
  EXPECT_EQ(ids.ids, (std::vector<int32_t>{1, 2, 3, 4, 9, 8, 7, 6}));
}

TEST_F(CalibrationRowsTest, Refusals) {
  EXPECT_NE(refusal("t.txt", "abc").find("has 3 tokens, expected at least the 4"), std::string::npos);
  EXPECT_NE(refusal("t.txt", "").find("has 0 tokens"), std::string::npos);
  EXPECT_NE(refusal("d.jsonl", "{\"text\": \"abc\"}\n").find("its longest document has 3 tokens"),
            std::string::npos);
  EXPECT_NE(refusal("d.jsonl", "\n[1, 2, 3, 27]\n").find("d.jsonl:2: '27' is no token id, expected 0 to 26"),
            std::string::npos);
  EXPECT_NE(refusal("d.jsonl", "{\"txt\": \"abcd\"}\n").find("expected an object with a \"text\""),
            std::string::npos);
  EXPECT_NE(refusal("d.jsonl", "{\"text\n").find("d.jsonl:1"), std::string::npos);
}

}  // namespace
}  // namespace tandem
