// Advice on made-up records: the right choice, the trade in words, and nothing below the floor.
#include "advisor/rank.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tandem {
namespace {

Record make(const std::string& variant, const std::string& kv, int64_t batch, double decode,
            double peak_mb, double ppl, double top1) {
  Record record;
  record.cell = {variant, kv, batch};
  record.decode_tokens_per_second.values = {decode};
  record.peak_resident_bytes = static_cast<uint64_t>(peak_mb * 1e6);
  record.quality.perplexity = ppl;
  if (variant != "bf16" || kv != "bf16") {
    record.quality.top1_agreement = top1;
    record.quality.kl_divergence = 0.01;
  }
  return record;
}

std::vector<Record> study() {
  return {make("bf16", "bf16", 1, 100, 1000, 20.0, 1),
          make("int8", "bf16", 1, 180, 600, 20.1, 0.97),
          make("int4 g64", "int8", 1, 210, 420, 20.62, 0.92),
          make("bf16", "bf16", 8, 400, 1100, 20.0, 1),
          make("int8", "bf16", 8, 900, 700, 20.1, 0.97),
          make("int4 g64", "int8", 8, 800, 500, 20.62, 0.92)};
}

const Advice& find(const Ranking& ranking, Goal goal) {
  for (const Advice& advice : ranking.advice) {
    if (advice.goal == goal) return advice;
  }
  throw std::logic_error("no advice for the goal");
}

TEST(Rank, NamesTheTradeAndTheRunnerUp) {
  const Ranking ranking = rank(study(), {});
  ASSERT_EQ(ranking.advice.size(), 4u);
  const Advice& fastest = find(ranking, Goal::fastest_decode);
  EXPECT_EQ(fastest.best, (CellKey{"int4 g64", "int8", 1}));
  EXPECT_EQ(fastest.runner_up, (CellKey{"int8", "bf16", 1}));
  EXPECT_NE(fastest.text.find("2.10x as fast as bf16"), std::string::npos) << fastest.text;
  EXPECT_NE(fastest.text.find("0.42x the memory"), std::string::npos) << fastest.text;
  EXPECT_NE(fastest.text.find("+3.1 % perplexity"), std::string::npos) << fastest.text;
  EXPECT_NE(fastest.text.find("Runner-up: int8 with bf16 KV"), std::string::npos) << fastest.text;
  EXPECT_EQ(find(ranking, Goal::throughput).best, (CellKey{"int8", "bf16", 8}));
  EXPECT_NE(find(ranking, Goal::throughput).text.find("2.25x"), std::string::npos);
  EXPECT_EQ(find(ranking, Goal::least_memory).best, (CellKey{"int4 g64", "int8", 1}));
  EXPECT_EQ(find(ranking, Goal::balanced).best, (CellKey{"int4 g64", "int8", 1}));
  EXPECT_TRUE(ranking.excluded.empty());
}

TEST(Rank, NeverRecommendsWhatIsBelowTheFloor) {
  for (const QualityFloor floor : {QualityFloor{0.95, 0.05}, QualityFloor{0.5, 0.02}}) {
    const Ranking ranking = rank(study(), floor);
    for (const Advice& advice : ranking.advice) {
      ASSERT_TRUE(advice.best);
      EXPECT_NE(advice.best->variant, "int4 g64");
      ASSERT_TRUE(advice.runner_up);
      EXPECT_NE(advice.runner_up->variant, "int4 g64");
    }
    ASSERT_EQ(ranking.excluded.size(), 1u);
    EXPECT_EQ(ranking.excluded[0].cell.variant, "int4 g64");
    EXPECT_NE(ranking.excluded[0].reason.find("floor"), std::string::npos);
  }
}

TEST(Rank, LowerPerplexityThanTheBaselineIsNoGain) {
  std::vector<Record> records = {make("bf16", "bf16", 1, 100, 1000, 20, 1),
                                 make("int8", "bf16", 1, 180, 600, 19.9, 0.97)};
  const Advice advice = rank(records, {}).advice[0];
  EXPECT_NE(advice.text.find("for no loss of perplexity"), std::string::npos) << advice.text;
  EXPECT_EQ(advice.text.find("-0.5 %"), std::string::npos) << advice.text;
}

TEST(Rank, NanAndUnmeasuredQualityAreBelow) {
  std::vector<Record> records = study();
  for (Record& record : records) {
    if (record.cell.variant == "int4 g64") record.quality.perplexity = std::nan("");
    if (record.cell.variant == "int8") record.quality.top1_agreement.reset();
  }
  const Ranking ranking = rank(records, {});
  EXPECT_EQ(ranking.excluded.size(), 2u);
  for (const Advice& advice : ranking.advice) EXPECT_EQ(advice.best->variant, "bf16");
  records[1].quality.top1_agreement = std::nan("");
  EXPECT_NE(below_floor(records[1], 20.0, {}), "");
  records[1].quality.top1_agreement = 0.99;
  records[1].quality.kl_divergence = std::nan("");
  EXPECT_NE(below_floor(records[1], 20.0, {}), "");
  EXPECT_NE(below_floor(records[1], std::nullopt, {}), "");
}

TEST(Rank, NothingToChooseFrom) {
  for (const Advice& advice : rank({}, {}).advice) {
    EXPECT_FALSE(advice.best);
    EXPECT_NE(advice.text.find("no record"), std::string::npos);
  }
  std::vector<Record> bad = {make("int8", "bf16", 1, 180, 600, 40, 0.5)};
  bad[0].extra = {{"baseline_perplexity", 20.0}};
  const Ranking ranking = rank(bad, {});
  for (const Advice& advice : ranking.advice) EXPECT_FALSE(advice.best);
  EXPECT_NE(ranking.advice[0].text.find("quality floor"), std::string::npos);
  EXPECT_EQ(ranking.excluded.size(), 1u);
}

TEST(Rank, WithoutABaselineCellTheNumbersAreAbsolute) {
  std::vector<Record> records = {make("int8", "bf16", 1, 180, 600, 20.1, 0.97)};
  records[0].extra = {{"baseline_perplexity", 20.0}};
  const Advice advice = rank(records, {}).advice[0];
  EXPECT_EQ(advice.best, records[0].cell);
  EXPECT_NE(advice.text.find("180 tokens/s in 600 MB"), std::string::npos) << advice.text;
  EXPECT_FALSE(advice.runner_up);
}

TEST(Rank, CellsThatWereNotTimedAreNotCandidates) {
  std::vector<Record> records = study();
  records[2].decode_tokens_per_second.values.clear();
  records[2].peak_resident_bytes = 0;
  const Ranking ranking = rank(records, {});
  EXPECT_EQ(find(ranking, Goal::fastest_decode).best, (CellKey{"int8", "bf16", 1}));
  EXPECT_EQ(find(ranking, Goal::least_memory).best, (CellKey{"int8", "bf16", 1}));
}

}  // namespace
}  // namespace tandem
