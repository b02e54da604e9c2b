// The closed form of o against its definition.
#include "compress/attention_refit.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"

namespace tandem {
namespace {

constexpr int64_t kOut = 5, kIn = 8, kTokens = 40;

struct Attended {
  Matrix a{kTokens, kIn}, b{kTokens, kIn};  // of the old and of the new attention
  std::vector<float> gram = std::vector<float>(kIn * kIn), cross = gram;

  explicit Attended(double likeness) {
    Random random(1);
    for (size_t i = 0; i < a.values.size(); ++i) {
      a.values[i] = static_cast<float>(random.normal());
      b.values[i] = static_cast<float>(likeness * a.values[i] + random.normal() * (1 - likeness));
    }
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t i = 0; i < kIn; ++i) {
        for (int64_t j = 0; j < kIn; ++j) {
          gram[static_cast<size_t>(i * kIn + j)] += b.row(t)[i] * b.row(t)[j];
          cross[static_cast<size_t>(i * kIn + j)] += a.row(t)[i] * b.row(t)[j];
        }
      }
    }
  }

  double error(const Matrix& old_o, const Matrix& o) const {
    double sum = 0;
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t n = 0; n < kOut; ++n) {
        double difference = 0;
        for (int64_t k = 0; k < kIn; ++k) {
          difference += double{old_o.row(n)[k]} * a.row(t)[k] - double{o.row(n)[k]} * b.row(t)[k];
        }
        sum += difference * difference;
      }
    }
    return sum;
  }
};

Matrix random_o() {
  Random random(2);
  Matrix o(kOut, kIn);
  for (float& w : o.values) w = static_cast<float>(random.normal());
  return o;
}

TEST(AttentionRefit, IsTheLeastSquaresSolution) {
  const Attended attended(0.6);
  const Matrix o = random_o();
  const Matrix refitted = refit_output(o, o, attended.gram, attended.cross, 0.0);
  const double least = attended.error(o, refitted);
  EXPECT_LT(least, attended.error(o, o));
  for (size_t i = 0; i < refitted.values.size(); ++i) {
    for (const float step : {-1e-2f, 1e-2f}) {
      Matrix near = refitted;
      near.values[i] += step;
      EXPECT_GT(attended.error(o, near), least) << i;
    }
  }
}

TEST(AttentionRefit, LeavesAnUnchangedAttentionAsItIs) {
  const Attended attended(1.0);
  const Matrix o = random_o();
  const Matrix refitted = refit_output(o, o, attended.gram, attended.cross, 0.01);
  for (size_t i = 0; i < o.values.size(); ++i) EXPECT_NEAR(refitted.values[i], o.values[i], 1e-5);
}

}  // namespace
}  // namespace tandem
