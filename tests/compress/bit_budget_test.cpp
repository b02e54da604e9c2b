// Allocations under a budget, against all combinations tried one by one.
#include "compress/bit_budget.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/error_message.h"
#include "base/random.h"

namespace tandem {
namespace {

using Choices = std::vector<std::vector<Form>>;

double best_by_trying_all(const Choices& choices, double budget, size_t m = 0) {
  if (budget < 0) return std::numeric_limits<double>::infinity();
  if (m == choices.size()) return 0.0;
  double best = std::numeric_limits<double>::infinity();
  for (const Form& form : choices[m]) {
    best = std::min(best, form.cost + best_by_trying_all(choices, budget - form.size, m + 1));
  }
  return best;
}

Choices random_choices(uint64_t seed, size_t matrices) {
  Random random(seed);
  Choices choices(matrices);
  for (auto& forms : choices) {
    for (int f = 0; f < 3; ++f) {
      forms.push_back({static_cast<double>(10 + random.below(40)), random.uniform()});
    }
  }
  return choices;
}

TEST(BitBudget, FindsTheLeastCostOfEveryBudget) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const Choices choices = random_choices(seed, 7);
    // One step a byte and finer: exact.
    const auto curve = pareto_curve(choices, 7 * 40 * 64);
    for (double budget = curve.front().size; budget < 350; ++budget) {
      const Allocation& best = within_budget(curve, budget, "bytes");
      EXPECT_LE(best.size, budget);
      EXPECT_NEAR(best.cost, best_by_trying_all(choices, budget), 1e-12) << seed << " " << budget;
    }
  }
}

TEST(BitBudget, TheCurveFallsInCostAsItRisesInSize) {
  const auto curve = pareto_curve(random_choices(9, 40), 200);
  ASSERT_GE(curve.size(), 3u);
  for (size_t i = 1; i < curve.size(); ++i) {
    EXPECT_GT(curve[i].size, curve[i - 1].size);
    EXPECT_LT(curve[i].cost, curve[i - 1].cost);
  }
}

TEST(BitBudget, SaysWhatItsFormsAddUpTo) {
  const Choices choices = random_choices(3, 12);
  for (const Allocation& allocation : pareto_curve(choices, 100)) {
    double size = 0, cost = 0;
    for (size_t m = 0; m < choices.size(); ++m) {
      size += choices[m][static_cast<size_t>(allocation.forms[m])].size;
      cost += choices[m][static_cast<size_t>(allocation.forms[m])].cost;
    }
    EXPECT_DOUBLE_EQ(allocation.size, size);
    EXPECT_NEAR(allocation.cost, cost, 1e-12);
  }
}

TEST(BitBudget, OneFormEachIsOnePoint) {
  const auto curve = pareto_curve({{{5, 1}}, {{7, 2}}});
  ASSERT_EQ(curve.size(), 1u);
  EXPECT_EQ(curve[0].size, 12);
  EXPECT_EQ(curve[0].cost, 3);
}

TEST(BitBudget, ABudgetBelowTheSmallestIsRefused) {
  const auto curve = pareto_curve({{{5, 1}, {9, 0}}});
  EXPECT_EQ(message_of(ErrorKind::usage, [&] { within_budget(curve, 4, "bytes"); }),
            "budget 4 bytes: the smallest there is takes 5");
}

}  // namespace
}  // namespace tandem
