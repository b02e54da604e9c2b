// Tasks and protocols: arithmetic by hand, and log-likelihoods against lm-eval over transformers in fp32.
#include "study/evals/loglikelihood.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/default_model.h"
#include "base/error.h"
#include "base/json.h"
#include "runtime/engine.h"
#include "study/evals/evaluate.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

std::string write_task(const std::string& text) {
  const fs::path path = fs::temp_directory_path() / ("tandem_task_" + std::to_string(getpid()));
  std::ofstream(path) << text;
  return path.string();
}

TEST(ReadTask, QuestionsGetTheirPrompt) {
  const std::string path = write_task(
      "{\"query\": \"Question: Why?\\n\", \"choices\": [\"a\", \"b\"], \"gold\": 1}\n"
      "{\"context\": \"Who\", \"choices\": [\"c\", \"d\"], \"gold\": 0}\r\n");
  const auto piqa = read_task("piqa", path);
  ASSERT_EQ(piqa.size(), 2u);
  EXPECT_EQ(piqa[0].context, "Question: Why?\nAnswer:");
  EXPECT_EQ(piqa[0].gold, 1);
  EXPECT_EQ(piqa[1].context, "Question: Who\nAnswer:");
  EXPECT_EQ(read_task("own", path)[1].context, "Who");
}

TEST(ReadTask, HellaSwagText) {
  const auto items = read_task("hellaswag", write_task("He runs. he\n2\na\nb\nc\nd\n"));
  ASSERT_EQ(items.size(), 1u);
  EXPECT_EQ(items[0].context, "He runs. he");
  EXPECT_EQ(items[0].choices, (std::vector<std::string>{"a", "b", "c", "d"}));
  EXPECT_EQ(items[0].gold, 2);
}

TEST(ReadTask, BadLinesAreNamed) {
  for (const char* text :
       {"", "{\"context\": \"x\"}\n",
        "{\"context\": \"x\", \"choices\": [\"a\", \"b\"], \"gold\": 2}",
        "{\"context\": \"x\", \"choices\": [\"a\"], \"gold\": 0}", "{\"context\": 3}", "{"}) {
    EXPECT_THROW(read_task("own", write_task(text)), Error) << text;
  }
  EXPECT_THROW(read_task("hellaswag", write_task("ctx\n7\na\nb\nc\nd\n")), Error);
}

TEST(Judge, SumsCharactersAndBytesMayDisagree) {
  const TaskItem item{"", {"abcdefghij", "ab", "\u6a4b\u6a4b\u6a4b"}, 0};
  const PairScore scores[] = {{5, -10.0, false}, {1, -3.0, false}, {3, -8.0, false}};
  // sums -10 -3 -8, by character -1 -1.5 -2.7, by byte -1 -1.5 -0.9
  ChoiceResult result = judge(item, scores);
  EXPECT_FALSE(result.right);
  EXPECT_TRUE(result.right_by_character);
  EXPECT_FALSE(result.right_by_byte);
}

std::vector<int32_t> counting(int64_t n) {
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) tokens[static_cast<size_t>(i)] = static_cast<int32_t>(i);
  return tokens;
}

TEST(Protocol, EveryTokenIsScoredOnce) {
  // A and E lose the first token of each window and the tail, C the first token of the text only.
  struct Case {
    const char* letter;
    int64_t windows, scored;
  };
  for (const Case& c :
       {Case{"A", 2, 2 * 2047}, Case{"B", 9, 9 * 255}, Case{"E", 9, 9 * 511}, Case{"C", 7, 4999}}) {
    const auto windows = protocol_windows(protocol_of(c.letter), counting(5000), -1, 0);
    int64_t scored = 0;
    for (const auto& w : windows) scored += static_cast<int64_t>(w.tokens.size()) - 1 - w.first;
    EXPECT_EQ(static_cast<int64_t>(windows.size()), c.windows) << c.letter;
    EXPECT_EQ(scored, c.scored) << c.letter;
  }
  EXPECT_THROW(protocol_of("D"), Error);
  EXPECT_THROW(protocol_windows(protocol_of("A"), counting(2047), -1, 0), Error);
}

// In protocol B it opens the text as well: the first window then loses no token to it.
TEST(Protocol, BosOpensTheTextOrEachWindow) {
  const auto text = counting(1100);
  const auto b = protocol_windows(protocol_of("B"), text, 9999, 0);
  EXPECT_EQ(b[0].tokens[0], 9999);
  EXPECT_EQ(b[0].tokens[1], 0);
  EXPECT_EQ(b[1].tokens[0], 9999);
  EXPECT_EQ(b[1].tokens[1], 512);
  const auto e = protocol_windows(protocol_of("E"), text, 9999, 1);
  ASSERT_EQ(e.size(), 1u);
  EXPECT_EQ(e[0].tokens[0], 9999);
  EXPECT_EQ(e[0].tokens[1], 0);
}

TEST(LogLikelihood, EqualsLmEvalInFp32) {
  const fs::path path = default_model();
  if (!fs::exists(path)) GTEST_SKIP() << "no default model at " << path;
  const fs::path golden = fs::path(TANDEM_TEST_DIR) / "golden/loglikelihood/smollm2.json";
  const Json items = parse_json(read_text_file(golden, 1 << 20), golden.string())["items"];
  const Checkpoint checkpoint = load_checkpoint(path);
  ThreadPool pool(2);
  const Model model(checkpoint, pool, "ref");
  const Tokenizer tokenizer(checkpoint.tokenizer);
  Scorer scorer(model, KvType::f32, 64);
  const LogitSource source = [&](std::span<const int32_t> tokens, int64_t first, const auto& sink) {
    scorer.score(tokens, first, sink);
  };
  int num_pairs = 0;
  for (const Json& item : items) {
    const auto context = item["context"].get<std::string>();
    for (size_t c = 0; c < item["choices"].size(); ++c, ++num_pairs) {
      const auto choice = item["choices"][c].get<std::string>();
      const PairTokens pair =
          encode_pair(tokenizer, context, (context.empty() ? "" : " ") + choice, false, 64);
      const PairScore score = score_pair(source, pair, checkpoint.config.vocab_size);
      EXPECT_EQ(score.num_tokens, item["scores"][c][0].get<int64_t>()) << choice;
      EXPECT_NEAR(score.log_likelihood, item["scores"][c][1].get<double>(), 2e-3) << choice;
      EXPECT_EQ(score.is_greedy, item["scores"][c][2].get<bool>()) << choice;
    }
  }
  EXPECT_GE(num_pairs, 40);
}

}  // namespace
}  // namespace tandem
