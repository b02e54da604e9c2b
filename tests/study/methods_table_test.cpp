// Records by hand -> the rows and the picture of the table of methods.
#include "study/methods_table.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tandem {
namespace {

Record record_of(const std::string& variant, double kl, uint64_t bytes) {
  Record r;
  r.cell = {variant, "bf16", 1};
  r.cpu = "a processor";
  r.model_hash = "abc";
  r.isa = "avx2";
  r.threads = 2;
  r.file_bytes = bytes;
  r.decode_tokens_per_second.values = {50, 60, 70};
  r.quality.perplexity = 8;
  r.quality.perplexity_stderr = 0.5;
  r.quality.scored_tokens = 255;
  if (variant != "bf16") {
    r.quality.kl_divergence = kl;
    r.quality.kl_stderr = kl / 10;
    r.quality.log_ratio = std::log(1.25);
    r.quality.log_ratio_stderr = 0.02;
    r.quality.top1_agreement = 0.875;
  }
  return r;
}

std::vector<MethodSheet> sheets() {
  MethodSheet sheet{"A model", {}};
  sheet.rows.push_back({"bf16", 16, record_of("bf16", 0, 4'000'000), MeanError{0.5, 0.05}, {}});
  sheet.rows.push_back({"int4 g64", 4.25, record_of("int4 g64", 0.2, 1'200'000), {}, {}});
  sheet.rows.push_back({"q4_0", 4.5, record_of("q4_0", 0.3, 1'300'000), {}, {}});
  return {sheet};
}

TEST(MethodsTable, HasARowAMethod) {
  const std::string text = methods_markdown(sheets());
  EXPECT_NE(text.find("## A model\n\n| method | bits |"), std::string::npos) << text;
  EXPECT_NE(text.find("| bf16 | 16.00 | 4.0 | 8.00 \u00b1 0.50 | - | - | - | 50.0 \u00b1 5.0 | 60.0 |"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("| int4 g64 | 4.25 | 1.2 | 8.00 \u00b1 0.50 | +25.0 \u00b1 2.5 % | "
                      "0.2000 \u00b1 0.0200 | 87.5 | - | 60.0 |"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("255 tokens scored; threads 2, avx2"), std::string::npos) << text;
}

TEST(MethodsTable, TakesSpeedsOfOtherProcessors) {
  std::vector<MethodSheet> all = sheets();
  Record gpu = record_of("q4_0", 0, 0), other = gpu, same = gpu;
  gpu.cpu = "a GPU";
  gpu.decode_tokens_per_second.values = {900};
  other.cpu = "another GPU";
  other.model_hash = "another model";
  add_speeds_elsewhere({gpu, other, same}, &all[0].rows);
  const std::string text = methods_markdown(all);
  EXPECT_NE(text.find("| decode tok/s, a processor | decode tok/s, a GPU |\n"), std::string::npos)
      << text;
  EXPECT_NE(text.find("| 60.0 | 900.0 |\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("another GPU"), std::string::npos) << text;
}

TEST(MethodsTable, NoisyRunsAreMarked) {
  std::vector<MethodSheet> all = sheets();
  EXPECT_EQ(methods_markdown(all).find("spread by more"), std::string::npos);
  all[0].rows[1].record.noisy = true;
  EXPECT_NE(methods_markdown(all).find("| 60.0* |"), std::string::npos);
  EXPECT_NE(methods_markdown(all).find("spread by more"), std::string::npos);
}

TEST(MethodsTable, ThePageHasAPictureOfWhatIsMeasured) {
  std::vector<MethodSheet> all = sheets();
  const std::string page = methods_page(all);
  EXPECT_NE(page.find("<svg"), std::string::npos);
  EXPECT_NE(page.find(">int4 g64<"), std::string::npos);
  EXPECT_NE(page.find("<td>0.2000 \u00b1 0.0200</td>"), std::string::npos);
  all[0].rows.resize(1);
  EXPECT_EQ(methods_page(all).find("<svg"), std::string::npos);
}

}  // namespace
}  // namespace tandem
