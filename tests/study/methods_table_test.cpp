// Records by hand -> the rows, the notes and the pictures of the table of methods.
#include "study/methods_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

namespace tandem {
namespace {

constexpr const char* kTitle = "A model";

Record record_of(const std::string& variant, double kl, uint64_t bytes, double bits) {
  Record r;
  r.cell = {variant, "bf16", 1};
  r.cpu = "a processor";
  r.model_hash = "abc";
  r.text_path = "/texts/prose.txt";
  r.isa = "avx2";
  r.threads = 2;
  r.new_tokens = 64;
  r.file_bytes = bytes;
  r.decode_tokens_per_second.values = {58, 60, 62};
  r.quality.perplexity = 8;
  r.quality.perplexity_stderr = 0.5;
  r.quality.scored_tokens = 255;
  r.quality.task_hits = "1100";
  if (variant != "bf16") {
    r.quality.kl_divergence = kl;
    r.quality.kl_stderr = kl / 10;
    r.quality.log_ratio = std::log(1.25);
    r.quality.log_ratio_stderr = 0.02;
    r.quality.top1_agreement = 0.875;
    r.quality.task_hits = "1000";
  }
  r.extra = {{kSheetKey, kTitle}, {kLayerBitsKey, bits}};
  return r;
}

std::vector<Record> records() {
  return {record_of("bf16", 0, 4'000'000, 16), record_of("int4 g64", 0.2, 1'200'000, 4.25),
          record_of("q4_0", 0.3, 1'300'000, 4.5)};
}

TEST(MethodsTable, HasARowAMethod) {
  const std::string text = methods_markdown(method_sheets(records()));
  EXPECT_NE(text.find("## A model\n\n| method | bits |"), std::string::npos) << text;
  EXPECT_NE(text.find("| bf16 | 16.00 | 4.0 | 8.00 | - | - | - | 50.0 | - | 60.0\u00b13% |"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("| int4 g64 | 4.25 | 1.2 | 8.00 | +25.0\u00b12.5 | 0.2000 | 87.5 | 25.0 | "
                      "-25.0\u00b125.0 | 60.0\u00b13% |"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("255 tokens of prose.txt scored by avx2 on a processor"), std::string::npos)
      << text;
  EXPECT_NE(text.find("CPU: a processor, 2 threads, avx2, 3 runs of 64 tokens."), std::string::npos)
      << text;
}

TEST(MethodsTable, PerplexityOutOfProportionIsAFactor) {
  std::vector<Record> all = records();
  all[1].quality.log_ratio = std::log(4000.0);
  all[1].quality.perplexity = 1.23e5;
  const std::string text = methods_markdown(method_sheets(all));
  EXPECT_NE(text.find("| 1.2e+05 | x4e+03 |"), std::string::npos) << text;
}

TEST(MethodsTable, TakesSpeedsOfOtherProcessors) {
  std::vector<MethodSheet> sheets = method_sheets(records());
  Record gpu = record_of("q4_0", 0, 0, 4.5), other = gpu, same = gpu;
  gpu.cpu = "a GPU";
  gpu.isa = "cuda";
  gpu.decode_tokens_per_second.values = {900};
  other.cpu = "another GPU";
  other.model_hash = "another model";
  add_speeds_elsewhere({gpu, other, same}, &sheets);
  const std::string text = methods_markdown(sheets);
  EXPECT_NE(text.find("| CPU | GPU |\n"), std::string::npos) << text;
  EXPECT_NE(text.find("| 60.0\u00b13% | 900\u00b10% |\n"), std::string::npos) << text;
  EXPECT_NE(text.find("| 60.0\u00b13% | - |\n"), std::string::npos) << text;
  EXPECT_NE(text.find("GPU: a GPU, 1 runs"), std::string::npos) << text;
  EXPECT_EQ(text.find("another GPU"), std::string::npos) << text;
}

TEST(MethodsTable, WhatDoesNotRunIsARowWithItsReason) {
  std::vector<Record> all = records();
  Record& row = all[2];
  row.isa = "cuda";
  row.decode_tokens_per_second.values.clear();
  row.quality = {};
  row.quality.perplexity = std::nan("");
  row.extra[kNotRunKey] = "no kernel runs q4_0 weights";
  const std::string text = methods_markdown(method_sheets(all));
  EXPECT_NE(text.find("| q4_0 | 4.50 | 1.3 | - | - | - | - | - | - | - |\n"), std::string::npos)
      << text;
  EXPECT_NE(text.find("q4_0: not run on cuda: no kernel runs q4_0 weights."), std::string::npos)
      << text;
}

TEST(MethodsTable, SpeedsAloneScoreNoTokens) {
  std::vector<Record> all = records();
  for (Record& record : all) record.quality = {};
  const std::string text = methods_markdown(method_sheets(all));
  EXPECT_EQ(text.find("tokens of prose.txt"), std::string::npos) << text;
  EXPECT_EQ(text.find("HellaSwag |"), std::string::npos) << text;
}

TEST(MethodsTable, NoisyRunsAreMarked) {
  std::vector<Record> all = records();
  EXPECT_EQ(methods_markdown(method_sheets(all)).find("spread by more"), std::string::npos);
  all[1].noisy = true;
  const std::string text = methods_markdown(method_sheets(all));
  EXPECT_NE(text.find("| 60.0\u00b13%* |"), std::string::npos) << text;
  EXPECT_NE(text.find("* the runs spread by more than 10 %."), std::string::npos) << text;
}

TEST(MethodsTable, TheTextFitsATerminal) {
  std::vector<Record> all = records();
  all[1].cell.variant = "sparsegpt-int4";
  all[1].file_bytes = 269'000'000;
  all[1].quality.perplexity = 48752.31;
  all[1].quality.log_ratio = std::log(9.8);
  all[1].cpu = all[2].cpu = "a processor with a long name of many words, such as vendors give them";
  std::vector<Record> twin = records();
  for (Record& record : twin) record.extra[kSheetKey] = "A model, off-grid twin";
  all.insert(all.end(), twin.begin(), twin.end());
  const std::vector<MethodSheet> sheets = method_sheets(all);
  ASSERT_EQ(sheets.size(), 2u);
  std::istringstream lines(methods_text(sheets));
  size_t num_lines = 0;
  for (std::string line; std::getline(lines, line); ++num_lines) {
    EXPECT_LE(std::ranges::count_if(line, [](char c) { return (c & 0xC0) != 0x80; }), 100) << line;
  }
  EXPECT_GT(num_lines, 10u);
}

TEST(MethodsTable, ThePageHasPicturesOfWhatIsMeasured) {
  std::vector<Record> all = records();
  const std::string page = methods_page(method_sheets(all));
  EXPECT_NE(page.find("Size against divergence"), std::string::npos);
  EXPECT_NE(page.find("Decode speed against divergence"), std::string::npos);
  EXPECT_NE(page.find(">int4 g64<"), std::string::npos);
  EXPECT_NE(page.find("<td>0.2000</td>"), std::string::npos);
  for (Record& record : all) record.decode_tokens_per_second.values.clear();
  EXPECT_EQ(methods_page(method_sheets(all)).find("Decode speed"), std::string::npos);
  all.resize(1);
  EXPECT_EQ(methods_page(method_sheets(all)).find("<svg"), std::string::npos);
}

TEST(MethodsTable, HitsArePaired) {
  EXPECT_DOUBLE_EQ(hit_rate("1100").mean, 0.5);
  EXPECT_DOUBLE_EQ(hit_change("1100", "1100").mean, 0);
  EXPECT_DOUBLE_EQ(hit_change("1100", "1100").error, 0);
  EXPECT_DOUBLE_EQ(hit_change("0011", "1100").mean, 0);
  EXPECT_NEAR(hit_change("0011", "1100").error, 1 / std::sqrt(3.0), 1e-12);
}

}  // namespace
}  // namespace tandem
