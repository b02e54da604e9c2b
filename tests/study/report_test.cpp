#include "study/report.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "study/svg_plot.h"

namespace tandem {
namespace {

struct VariantFacts {
  const char* name;
  double bytes;   // of weights
  double decode;  // tokens/s at batch 1
  double prefill;
  double perplexity, divergence, agreement;
};

constexpr VariantFacts kVariants[] = {
    {"as shipped", 98e6, 241, 905, 22.58, 0.0121, 0.962},
    {"bf16", 269e6, 92, 410, 22.51, 0, 1},
    {"int8", 135e6, 183, 980, 22.56, 0.0047, 0.978},
    {"int4 g64", 79e6, 262, 890, 25.31, 0.1198, 0.862},
};

Samples around(double value, double relative, int n, Random& random) {
  Samples samples;
  for (int i = 0; i < n; ++i) samples.values.push_back(value * (1 + relative * random.normal()));
  return samples;
}

Record make_record(const VariantFacts& v, const std::string& kv, int64_t batch, Random& random) {
  Record r;
  r.study_id = "9f3a";
  r.cell = {v.name, kv, batch};
  r.prompt_tokens = 256;
  r.new_tokens = 128;
  r.seed = 7;
  r.threads = 2;
  r.isa = "avx512_vnni";
  r.kernels = {"linear_w8a8_avx512_vnni x 210", "linear_bf16_avx512 x 1"};
  const double b = static_cast<double>(batch), narrow = kv == "int8" ? 0.97 : 1;
  r.decode_tokens_per_second = around(v.decode * narrow * std::pow(b, 0.72), 0.012, 5, random);
  r.prefill_tokens_per_second = around(v.prefill * (1 + 0.05 * std::log2(b)), 0.015, 5, random);
  r.first_token_seconds = around(256 * b / v.prefill, 0.02, 5, random);
  r.noisy = batch == 4 && std::string(v.name) == "int8" && kv == "int8";
  r.reruns = r.noisy ? 2 : 0;
  r.file_bytes = static_cast<uint64_t>(v.bytes * 1.02);
  r.weight_bytes = static_cast<uint64_t>(v.bytes);
  r.kv_bytes = static_cast<uint64_t>(b * 384 * (kv == "int8" ? 12.2e3 : 23.0e3));
  r.workspace_bytes = static_cast<uint64_t>(6e6 + 2.5e6 * b);
  r.peak_resident_bytes = r.weight_bytes + r.kv_bytes + r.workspace_bytes + 21'000'000;
  r.step_read_bytes = r.weight_bytes;
  r.energy_source = "not measured: no readable meter";
  r.quality.perplexity = v.perplexity + (kv == "int8" ? 0.02 : 0);
  r.quality.perplexity_stderr = 0.31;
  if (std::string(v.name) != "bf16" || kv != "bf16") {
    r.quality.kl_divergence = v.divergence + (kv == "int8" ? 0.0011 : 0);
    r.quality.kl_stderr = *r.quality.kl_divergence * 0.06;
    r.quality.log_ratio = 0.0123;
    r.quality.log_ratio_stderr = 0.0011;
    r.quality.top1_agreement = v.agreement - (kv == "int8" ? 0.006 : 0);
  }
  r.quality.scored_tokens = 10'200;
  const std::string same = "The capital of France is Paris. It lies on the Seine";
  r.quality.sample_answers = {
      same + (v.perplexity > 23 ? " and it is the largest city of Europe."
                                : " and has been the seat of government since 987."),
      "Two apples cost 3 euros.\nSo five apples cost 7.50 euros." +
          std::string(v.perplexity > 23 ? " Or eight." : "")};
  r.model_path = "/home/user/.cache/tandem/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  r.model_hash = "5d1c6b0ffb2c9f6b4a1e8c1d2b3a4f5e";
  r.text_path = "/usr/share/doc/developers-reference/developers-reference.txt.gz";
  r.text_hash = "c0ffee00c0ffee00c0ffee00c0ffee00";
  r.commit = "2cb63f2d1a90";
  r.version = "0.1.0";
  r.machine = "build-vm, 2 cores, 23 GiB";
  r.cpu = "Intel(R) Xeon(R) Platinum 8488C";
  r.compiler = "g++ 12.2.0 -O3";
  r.started_at = "2026-03-01T10:00:00Z";
  r.load_average = 0.4;
  r.extra["read_gbps_limit"] = 31.5;
  r.extra["shipped_encoding"] = "q4_1";
  r.extra["order"] = batch;
  return r;
}

ReportInput full_study() {
  Random random(1);
  ReportInput input;
  input.profile = "quick";
  input.questions = {"What is the capital of France?",
                     "If two apples cost 3 euros, what do five cost?"};
  input.command = "tandem study --profile quick --threads 2";
  for (const VariantFacts& v : kVariants) {
    for (const char* kv : {"bf16", "int8"}) {
      for (const int64_t batch : {1, 2, 4, 8})
        input.records.push_back(make_record(v, kv, batch, random));
    }
  }
  input.recommended = CellKey{"as shipped", "bf16", 1};
  input.recommendation =
      "Run the file as it was shipped. It decodes 2.6 times as fast as bf16 in 37 % of the "
      "weights' memory, "
      "and its perplexity is within the standard error of bf16.";
  input.recommendation_points = {
      "int8 is the next best: closer to bf16 (98 % of top tokens), but a quarter slower to decode.",
      "int4 g64 decodes fastest, but its perplexity is 12 % higher: below the floor of 5 % that "
      "was set.",
      "An int8 KV cache saves 33 MB at batch 8 and costs 3 % of speed; at batch 1 it is not worth "
      "it."};
  return input;
}

bool is_void_element(const std::string& name) {
  return name == "meta" || name == "br" || name == "!doctype";
}

// Empty if every tag is closed in order and no text holds a bare '<'; else what is wrong.
std::string unbalanced(const std::string& html) {
  std::vector<std::string> open;
  for (size_t i = html.find('<'); i != std::string::npos; i = html.find('<', i + 1)) {
    const size_t end = html.find('>', i);
    if (end == std::string::npos) return "unfinished tag";
    const std::string tag = html.substr(i + 1, end - i - 1);
    if (std::count(tag.begin(), tag.end(), '"') % 2 != 0) return "odd quotes in " + tag;
    const bool closing = tag[0] == '/';
    const std::string name = tag.substr(closing, tag.find_first_of(" /", closing) - closing);
    if (name.empty() || tag.find('<') != std::string::npos) return "bare < before " + tag;
    if (closing) {
      if (open.empty() || open.back() != name) return "unexpected </" + name + ">";
      open.pop_back();
    } else if (tag.back() != '/' && !is_void_element(name)) {
      open.push_back(name);
    }
  }
  return open.empty() ? "" : "open: " + open.back();
}

size_t count(const std::string& text, const std::string& what) {
  size_t n = 0;
  for (size_t i = text.find(what); i != std::string::npos; i = text.find(what, i + 1)) ++n;
  return n;
}

TEST(Report, FullStudyIsOneWellFormedFile) {
  const ReportInput input = full_study();
  const auto path = std::filesystem::path(testing::TempDir()) / "tandem_report_test.html";
  write_report(path, input);
  const std::string html = read_text_file(path, 4 << 20);
  EXPECT_EQ(unbalanced(html), "");
  EXPECT_LT(html.size(), 400u << 10);
  EXPECT_EQ(html, render_report(input));
  for (const VariantFacts& v : kVariants) EXPECT_GT(count(html, v.name), 10u) << v.name;
  for (int i = 1; i <= 8; ++i) EXPECT_EQ(count(html, fmt::format("id=\"f{}\"", i)), 1u) << i;
  EXPECT_NE(html.find("Use the weights as shipped"), std::string::npos);
  EXPECT_NE(html.find("already 4-bit (q4_1)"), std::string::npos);
  EXPECT_NE(html.find("not measured: no readable meter"), std::string::npos);
  EXPECT_NE(html.find(">noisy</small>"), std::string::npos);
  // exp(0.0123) - 1 and its paired error, in percent
  EXPECT_NE(html.find("+1.24 <small>\u00b10.11</small>"), std::string::npos);
  EXPECT_EQ(count(html, "<tr><th scope=\"row\"><span"), 31u);
  EXPECT_EQ(count(html, "<tr class=\"pick\""), 1u);
  EXPECT_EQ(html.find("nan"), std::string::npos);
  EXPECT_GE(count(html, "<code>tandem study --profile quick --threads 2</code>"), 7u);
}

TEST(Report, LoadsNothing) {
  const std::string html = render_report(full_study());
  for (const char* what : {"http:", "https:", "<script", "<link", "<img", "<iframe",
                           " src=", "@import", "javascript:"}) {
    EXPECT_EQ(html.find(what), std::string::npos) << what;
  }
  EXPECT_EQ(count(html, "href=\""), count(html, "href=\"#"));
  EXPECT_EQ(count(html, "url("), count(html, "url(#h"));
  EXPECT_NE(html.find("default-src 'none'"), std::string::npos);
}

TEST(Report, EscapesEverythingThatItIsGiven) {
  ReportInput input = full_study();
  const std::string evil = "<script>alert(\"x\")</script>'&\n\x01\xff</title></style>";
  input.title = input.profile = input.command = input.recommendation = evil;
  input.recommendation_points = input.questions = {evil};
  input.recommended = CellKey{evil, evil, 1};
  for (Record& r : input.records) {
    r.study_id = r.isa = r.model_path = r.model_hash = r.text_path = r.text_hash = r.commit = evil;
    r.version = r.machine = r.cpu = r.compiler = r.started_at = r.energy_source = evil;
    r.kernels = {evil};
    r.quality.sample_answers = {evil, evil + "2"};
    r.extra[evil] = evil;
    r.extra["shipped_encoding"] = "q4" + evil;
    if (r.cell.variant == "int8") r.cell.variant = evil;
    if (r.cell.kv == "int8") r.cell.kv = evil;
  }
  const std::string html = render_report(input);
  EXPECT_EQ(unbalanced(html), "");
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find('\x01'), std::string::npos);
  EXPECT_EQ(html.find('\xff'), std::string::npos);
  EXPECT_GT(count(html, "&lt;script&gt;"), 30u);
}

TEST(Report, EmptyOneAndManyRecords) {
  const std::string empty = render_report({});
  EXPECT_EQ(unbalanced(empty), "");
  EXPECT_NE(empty.find("No records"), std::string::npos);
  EXPECT_EQ(empty.find("<figure"), std::string::npos);

  ReportInput one;
  one.records = {full_study().records.front()};
  const std::string single = render_report(one);
  EXPECT_EQ(unbalanced(single), "");
  EXPECT_NE(single.find("No single recommendation"), std::string::npos);

  ReportInput blank;
  blank.records.resize(1);  // nothing measured
  EXPECT_EQ(unbalanced(render_report(blank)), "");

  ReportInput many;
  Random random(3);
  for (int i = 0; i < 10'000; ++i) {
    Record r = make_record(kVariants[i % 4], i % 2 ? "int8" : "bf16", 1 + i / 8, random);
    r.cell.variant = fmt::format("{} {}", r.cell.variant, i % 40);
    many.records.push_back(std::move(r));
  }
  const std::string html = render_report(many);
  EXPECT_EQ(unbalanced(html), "");
  EXPECT_EQ(count(html, "<tr><th scope=\"row\"><span"), 10'000u);
  EXPECT_LT(html.size(), 12u << 20);
  EXPECT_NE(html.find("cells are too many for the figures"), std::string::npos);
}

TEST(Report, ValuesThatAreNotFiniteAreNotDrawn) {
  ReportInput input = full_study();
  for (Record& r : input.records) {
    r.decode_tokens_per_second.values = {NAN, 3};
    r.quality.perplexity = INFINITY;
    r.quality.kl_divergence = NAN;
    r.joules_per_token = 0.31;
    r.prefill_tokens_per_second.values = {0, 0};
  }
  const std::string html = render_report(input);
  EXPECT_EQ(unbalanced(html), "");
  EXPECT_EQ(html.find("\"nan"), std::string::npos);
  EXPECT_EQ(html.find("inf\""), std::string::npos);
  EXPECT_NE(html.find("joules a token"), std::string::npos);
}

TEST(Report, EqualAnswersShareACard) {
  const std::string html = render_report(full_study());
  EXPECT_EQ(count(html, "<div class=\"card "), 4u);  // two prompts, int4 departs in both
  EXPECT_NE(html.find("It lies on the Seine and</span> it is the largest"), std::string::npos);
}

TEST(Report, ReadsItsRecordsBack) {
  const auto path = std::filesystem::path(testing::TempDir()) / "tandem_report_test.jsonl";
  const ReportInput input = full_study();
  std::string text;
  for (const Record& r : input.records) text += dump_json(to_json(r)) + "\n\n";
  write_file_atomic(path, text);
  ReportInput again = input;
  again.records = read_records_jsonl(path);
  EXPECT_EQ(render_report(again), render_report(input));
  write_file_atomic(path, text + "{\"cell\":\n");
  try {
    read_records_jsonl(path);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, ErrorKind::bad_file);
    EXPECT_NE(std::string(error.what()).find("line 65"), std::string::npos) << error.what();
  }
}

TEST(SvgPlot, AxesHaveRoundTicks) {
  const Axis axis = linear_axis(0, 437);
  EXPECT_EQ(axis.ticks.front(), 0);
  EXPECT_EQ(axis.high, 600);
  EXPECT_EQ(linear_axis(22.4, 25.7).low, 22);
  EXPECT_EQ(linear_axis(5, 5).low, 5);
  EXPECT_GT(linear_axis(5, 5).high, 5);
  EXPECT_EQ(linear_axis(NAN, 1).high, 1);
  const Axis logarithmic = log_axis(3, 700);
  EXPECT_EQ(logarithmic.ticks, (std::vector<double>{5, 10, 20, 50, 100, 200, 500}));
  EXPECT_NEAR(log_axis(1, 100).place(10, 0, 100), 50, 1e-9);
  EXPECT_EQ(axis.place(-5, 10, 20), 10);
}

TEST(SvgPlot, NumbersDoNotDependOnTheLocale) {
  EXPECT_EQ(format_number(1234567.8, 9), "1,234,567.80");
  EXPECT_EQ(format_number(0), "0");
  EXPECT_EQ(format_number(0.01234), "0.0123");
  EXPECT_EQ(format_number(123.4), "123");
  EXPECT_EQ(format_number(-1234, 4), "-1,234");
  EXPECT_EQ(format_number(1e-7, 2), "1.0e-07");
  EXPECT_EQ(format_number(NAN), "n/a");
}

TEST(SvgPlot, TextIsClippedAtCharacters) {
  EXPECT_EQ(clip_text("abcdef", 6), "abcdef");
  EXPECT_EQ(clip_text("abcdefg", 6), "abcde\u2026");
  EXPECT_EQ(clip_text("\u00e4\u00f6\u00fc", 2), "\u00e4\u2026");
}

}  // namespace
}  // namespace tandem
