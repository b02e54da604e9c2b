// Medians, spreads and the exact way of records to JSON, JSONL and CSV.
#include "study/record.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "study/export.h"

namespace tandem {
namespace {

Record sample_record() {
  Record record;
  record.study_id = "s1";
  record.cell = {"int4 g64", "int8", 4};
  record.prompt_tokens = 128;
  record.seed = std::numeric_limits<uint64_t>::max();
  record.kernels = {"linear_int4_avx512 x120"};
  record.decode_tokens_per_second.values = {0.1, 1.0 / 3.0, 1e-300, 12345.678901234567};
  record.weight_bytes = (uint64_t{1} << 53) + 1;
  record.joules_per_token = 0.1 + 0.2;
  record.quality.perplexity = std::numeric_limits<double>::infinity();
  record.quality.log_ratio = -1e-4;
  record.quality.log_ratio_stderr = 2e-5;
  record.quality.top1_agreement = 0.9;
  record.quality.sample_answers = {"a \"quoted\"\nanswer", "caf\xC3\xA9"};
  record.quality.task_hits = "0110";
  record.extra = {{"order", 3}};
  return record;
}

TEST(Samples, MedianOfOddAndEvenCounts) {
  EXPECT_EQ((Samples{{3, 1, 2}}).median(), 2);
  EXPECT_EQ((Samples{{4, 1, 3, 2}}).median(), 2.5);
  EXPECT_EQ((Samples{{7}}).median(), 7);
}

TEST(Samples, SpreadIsTheQuartilesDistanceOverTheMedian) {
  EXPECT_DOUBLE_EQ((Samples{{1, 2, 3, 4, 5}}).spread(), 2.0 / 3.0);
  EXPECT_EQ((Samples{{5}}).spread(), 0);
  EXPECT_EQ((Samples{{5, 5, 5}}).spread(), 0);
}

TEST(Samples, NothingOrNanHasNoMedian) {
  EXPECT_TRUE(std::isnan(Samples{}.median()));
  EXPECT_TRUE(std::isnan((Samples{{1, std::nan(""), 3}}).median()));
  EXPECT_TRUE(std::isnan((Samples{{1, std::nan(""), 3}}).spread()));
}

TEST(RecordJson, BothWaysExact) {
  const Record record = sample_record();
  const std::string text = dump_json(to_json(record));
  const Record back = record_from_json(parse_json(text, "test"));
  EXPECT_EQ(dump_json(to_json(back)), text);
  EXPECT_EQ(back.seed, record.seed);
  EXPECT_EQ(back.weight_bytes, record.weight_bytes);
  EXPECT_EQ(back.decode_tokens_per_second.values, record.decode_tokens_per_second.values);
  EXPECT_EQ(back.joules_per_token, record.joules_per_token);
  EXPECT_EQ(back.cell, record.cell);
  EXPECT_TRUE(std::isinf(back.quality.perplexity));
  EXPECT_FALSE(back.idle_watts.has_value());
  EXPECT_EQ(back.quality.sample_answers, record.quality.sample_answers);
  EXPECT_EQ(back.quality.task_hits, record.quality.task_hits);
}

TEST(RecordJson, NanSurvives) {
  Record record = sample_record();
  record.quality.perplexity = std::nan("");
  const Record back = record_from_json(parse_json(dump_json(to_json(record)), "test"));
  EXPECT_TRUE(std::isnan(back.quality.perplexity));
}

TEST(RecordJson, FiguresThatMayBeAbsentMayBeMissing) {
  Json json = to_json(sample_record());
  EXPECT_EQ(record_from_json(json).quality.log_ratio, -1e-4);
  json["quality"].erase("log_ratio");
  EXPECT_FALSE(record_from_json(json).quality.log_ratio.has_value());
}

TEST(RecordJson, AMissingOrWrongFieldIsRefused) {
  Json json = to_json(sample_record());
  json["seed"] = "seven";
  EXPECT_THROW(record_from_json(json), Error);
  json = to_json(sample_record());
  json.erase("commit");
  EXPECT_THROW(record_from_json(json), Error);
}

TEST(Export, CsvQuotesAndKeepsTheColumnCount) {
  Record record = sample_record();
  record.energy_source = "command: echo \"1,5\"";
  const std::string csv = records_csv({record, Record{}});
  EXPECT_NE(csv.find("\"command: echo \"\"1,5\"\"\""), std::string::npos);
  // Columns of a line: separators outside quotes. An empty first field counts as one too.
  std::vector<int> commas;
  bool in_quotes = false;
  int count = 0;
  for (const char c : csv) {
    if (c == '"') in_quotes = !in_quotes;
    if (c == ',' && !in_quotes) ++count;
    if (c == '\n') commas.push_back(std::exchange(count, 0));
  }
  ASSERT_EQ(commas.size(), 3u);
  EXPECT_EQ(commas[1], commas[0]);
  EXPECT_EQ(commas[2], commas[0]);
}

TEST(Export, JsonlIsOneDocumentALine) {
  const std::string text = records_jsonl({sample_record(), sample_record()});
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
  const Record back = record_from_json(parse_json(text.substr(0, text.find('\n')), "test"));
  EXPECT_EQ(back.study_id, "s1");
}

}  // namespace
}  // namespace tandem
