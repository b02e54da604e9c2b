// The gate's statistics by hand, and a model against itself.
#include "study/evals/gate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error_message.h"
#include "model/model.h"

namespace tandem {
namespace {

TEST(PairedDrop, ByHand) {
  // Of 10 items 3 were lost and 1 was won: cells 3.5 and 1.5 of 12.
  std::vector<double> source(10, 1), result(10, 1);
  result[0] = result[1] = result[2] = 0;
  source[9] = 0;
  const TaskDrop drop = paired_drop("t", source, result);
  EXPECT_EQ(drop.num_items, 10);
  EXPECT_DOUBLE_EQ(drop.source, 0.9);
  EXPECT_DOUBLE_EQ(drop.result, 0.7);
  EXPECT_DOUBLE_EQ(drop.drop, 0.2);
  const double variance = (5.0 - 4.0 / 12) / 144;
  EXPECT_NEAR(drop.upper, 2.0 / 12 + 1.96 * std::sqrt(variance), 1e-12);
}

TEST(PairedDrop, FewItemsAreNoCertainty) {
  const TaskDrop three = paired_drop("t", {1, 0, 1}, {1, 0, 1});
  EXPECT_EQ(three.drop, 0);
  EXPECT_GT(three.upper, 0.3);
  const std::vector<double> many(1000, 1);
  EXPECT_LT(paired_drop("t", many, many).upper, 0.003);
  EXPECT_LE(paired_drop("t", {1}, {0}).upper, 1.0);
}

TEST(SharedLines, CountsLinesLongEnoughToTell) {
  const std::string line(40, 'a'), other(60, 'b'), low(39, 'c');
  EXPECT_EQ(num_shared_lines(line + "\n" + low + "\n" + line, low + "\n" + line + "\n"), 2);
  EXPECT_EQ(num_shared_lines(line + "\n" + low, other + "\n" + low), 0);
  EXPECT_EQ(num_shared_lines("", line), 0);
  EXPECT_EQ(num_shared_lines(line, line), 1);
}

GatePlan plan_of(const std::string& text) {
  GatePlan plan;
  plan.text = text;
  plan.num_windows = 1;
  plan.isa = "ref";
  return plan;
}

TEST(Gate, RefusesAContextShorterThanAWindow) {
  const Checkpoint tiny =
      load_checkpoint(std::filesystem::path(TANDEM_TEST_DIR) / "golden" / "families" / "llama");
  ASSERT_LT(tiny.config.max_context, 512);
  ThreadPool pool(1, /*pin=*/false);
  const std::string message = message_of(
      ErrorKind::usage, [&] { measure_gate(tiny, tiny, plan_of("text"), pool, {}); });
  EXPECT_NE(message.find("windows of 512 tokens, the model's context is"), std::string::npos)
      << message;
}

TEST(Gate, AModelIsNoWorseThanItself) {
  Checkpoint tiny =
      load_checkpoint(std::filesystem::path(TANDEM_TEST_DIR) / "golden" / "families" / "llama");
  tiny.config.max_context = 1024;
  std::string text;
  while (text.size() < 4000) text += "abc ab a bc c ";
  GatePlan plan = plan_of(text);
  plan.tasks = {{"own", {{"a", {"b", "c"}, 0}, {"b", {"a", "c"}, 1}}}};
  ThreadPool pool(2, /*pin=*/false);
  size_t last = 0, total = 0;
  const GateFigures figures = measure_gate(tiny, tiny, plan, pool, [&](size_t done, size_t all) {
    EXPECT_EQ(done, last + 1);
    last = done;
    total = all;
  });
  EXPECT_EQ(last, 5u);
  EXPECT_EQ(total, 5u);
  ASSERT_TRUE(figures.text.has_value());
  EXPECT_EQ(figures.text->num_scored, 255);
  EXPECT_EQ(figures.text->kl_divergence->mean, 0);
  EXPECT_EQ(figures.text->top1_agreement->mean, 1);
  EXPECT_EQ(figures.text->log_ratio->mean, 0);
  ASSERT_EQ(figures.tasks.size(), 1u);
  EXPECT_EQ(figures.tasks[0].drop, 0);
}

}  // namespace
}  // namespace tandem
