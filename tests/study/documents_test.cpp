// Protocol D against lm-eval: the pages, the text it reads, its counts and its sums.
#include "study/evals/documents.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <numeric>

#include "base/file.h"
#include "base/json.h"
#include "runtime/engine.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

Json golden_pages() {
  const fs::path path = fs::path(TANDEM_TEST_DIR) / "golden/loglikelihood/smollm2.json";
  return parse_json(read_text_file(path, 1 << 20), path.string())["pages"];
}

TEST(Documents, PagesTextAndCountsAreLmEvals) {
  const Json golden = golden_pages();
  const auto pages = split_pages(golden["file"].get<std::string>());
  ASSERT_EQ(pages.size(), golden["documents"].size());
  for (size_t i = 0; i < pages.size(); ++i) {
    const Json& expected = golden["documents"][i];
    EXPECT_EQ(pages[i], expected["page"].get<std::string>());
    EXPECT_EQ(detokenize_page(pages[i]), expected["text"].get<std::string>());
    EXPECT_EQ(count_words(pages[i]), expected["words"].get<int64_t>());
    EXPECT_EQ(std::ssize(pages[i]), expected["bytes"].get<int64_t>());
  }
}

TEST(Documents, ATextWithoutHeadingsIsOnePage) {
  EXPECT_EQ(split_pages("one\n\ntwo\n"), std::vector<std::string>{"one\n\ntwo\n"});
  EXPECT_EQ(split_pages(" = = Deep = = \nx").size(), 1u);
  EXPECT_TRUE(split_pages(" \n\n").empty());
  EXPECT_TRUE(split_pages("").empty());
}

TEST(Documents, SpacesInsidePairsOnly) {
  EXPECT_EQ(detokenize_page("( a ( b ) c ) [ ] {"), "(a ( b) c ) [] {");
  EXPECT_EQ(detokenize_page("\" a \" b \" c"), "\"a\" b \" c");
  EXPECT_EQ(count_words(""), 1);
  EXPECT_EQ(count_words(" a\u00a0\u3000b\n"), 4);
}

TEST(Documents, WindowsPredictEveryTokenOnceWithFullContext) {
  constexpr int32_t kPrefix = 99;
  // lm-eval's own example: ten tokens, windows of four.
  std::vector<int32_t> tokens(10);
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto windows = rolling_windows(tokens, kPrefix, 4);
  ASSERT_EQ(windows.size(), 3u);
  EXPECT_EQ(windows[0].tokens, (std::vector<int32_t>{kPrefix, 0, 1, 2, 3}));
  EXPECT_EQ(windows[0].first, 0);
  EXPECT_EQ(windows[1].tokens, (std::vector<int32_t>{3, 4, 5, 6, 7}));
  EXPECT_EQ(windows[1].first, 0);
  EXPECT_EQ(windows[2].tokens, (std::vector<int32_t>{5, 6, 7, 8, 9}));
  EXPECT_EQ(windows[2].first, 2) << "token 7 predicts 8";
  EXPECT_EQ(rolling_windows(tokens, kPrefix, 10).size(), 1u);
  EXPECT_EQ(rolling_windows(tokens, kPrefix, 9).size(), 2u);
  EXPECT_TRUE(rolling_windows({}, kPrefix, 4).empty());
}

TEST(Documents, FiguresAndErrorsByHand) {
  // Every token costs ln 2: two pages of 4 tokens and 2 words, of 2 tokens and 2 words.
  const LogitSource coin = [](std::span<const int32_t> tokens, int64_t first, const auto& sink) {
    const float logits[] = {0, 0};
    for (int64_t p = first; p < std::ssize(tokens); ++p) sink(p, logits);
  };
  const std::vector<Document> documents = {{rolling_windows({0, 1, 0, 1}, 0, 3), 2, 8},
                                           {rolling_windows({1, 1}, 0, 3), 2, 4}};
  const DocumentsResult result = evaluate_documents(coin, documents, 2, {});
  EXPECT_EQ(result.num_scored, 6);
  EXPECT_EQ(result.num_windows, 3);
  EXPECT_NEAR(result.word_perplexity.mean, std::exp2(1.5), 1e-6);
  EXPECT_NEAR(result.bits_per_byte.mean, 0.5, 1e-6);
  EXPECT_NEAR(result.byte_perplexity.mean, std::exp2(0.5), 1e-6);
  EXPECT_NEAR(result.bits_per_byte.error, 0, 1e-6) << "both pages have half a bit a byte";
  // By the word the pages lie 1 bit above and below: sqrt(2 / 1 (1 + 1)) / 4 bits.
  EXPECT_NEAR(result.word_perplexity.error, std::exp2(1.5) * std::log(2.0) * 0.5, 1e-6);
}

TEST(Documents, SumsAreLmEvals) {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const fs::path root = cache && *cache ? fs::path(cache) : fs::path(home ? home : "") / ".cache";
  const fs::path path = root / "tandem" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!fs::exists(path)) GTEST_SKIP() << "no default model at " << path;
  const Json golden = golden_pages();
  const Checkpoint checkpoint = load_checkpoint(path);
  ThreadPool pool(2);
  const Model model(checkpoint, pool, "ref");
  const Tokenizer tokenizer(checkpoint.tokenizer);
  const auto max_length = golden["max_length"].get<int64_t>();
  Scorer scorer(model, KvType::f32, max_length);
  const LogitSource source = [&](std::span<const int32_t> tokens, int64_t first, const auto& sink) {
    scorer.score(tokens, first, sink);
  };
  std::vector<Document> documents;
  for (const Json& expected : golden["documents"]) {
    documents.push_back(make_document(expected["page"].get<std::string>(), tokenizer,
                                      checkpoint.tokenizer.add_bos, max_length));
    const DocumentsResult one =
        evaluate_documents(source, {documents.back()}, checkpoint.config.vocab_size, {});
    EXPECT_GT(one.num_windows, 1);
    EXPECT_NEAR(-std::log(one.word_perplexity.mean) * expected["words"].get<double>(),
                expected["loglikelihood"].get<double>(), 5e-3);
  }
  const DocumentsResult all =
      evaluate_documents(source, documents, checkpoint.config.vocab_size, {});
  const auto expected = golden["word_perplexity"].get<double>();
  EXPECT_NEAR(all.word_perplexity.mean, expected, 1e-4 * expected);
}

}  // namespace
}  // namespace tandem
