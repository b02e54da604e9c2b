// Matrix products of every instruction set against ref: all layouts, shapes that are no multiple of a
// tile, the upper triangle alone, one thread and several.
#include "kernels/multiply.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/random.h"
#include "kernels/table.h"

namespace tandem {
namespace {

std::vector<float> random_values(int64_t n, uint64_t seed) {
  std::vector<float> values(static_cast<size_t>(n));
  Random random(seed);
  for (float& value : values) value = static_cast<float>(random.normal());
  return values;
}

struct Case {
  int64_t M, N, K;
  bool a_transposed, b_transposed, upper_only;
};

std::vector<float> product_of(std::string_view isa, const Case& c, int threads) {
  const std::vector<float> a = random_values(c.M * c.K, 1), b = random_values(c.K * c.N, 2);
  std::vector<float> out = random_values(c.M * (c.N + 3), 3);
  ThreadPool pool(threads, /*pin=*/false);
  const MatrixView left = c.a_transposed ? MatrixView{a.data(), 1, c.M} : MatrixView{a.data(), c.K};
  const MatrixView right = c.b_transposed ? MatrixView{b.data(), 1, c.K} : MatrixView{b.data(), c.N};
  find_multiply(isa)(pool, {c.M, c.N, c.K, left, right, out.data(), c.N + 3, -0.5f, c.upper_only});
  return out;
}

TEST(Multiply, AgreesWithRef) {
  const Case cases[] = {{1, 1, 1, false, false, false},     {8, 48, 16, false, false, false},
                        {9, 49, 17, false, true, false},    {130, 100, 513, true, false, false},
                        {77, 77, 1030, true, false, true},  {3, 300, 5, false, false, false},
                        {300, 3, 700, false, true, false},  {5, 7, 0, false, false, false}};
  for (const std::string_view isa : runnable_isas()) {
    for (const Case& c : cases) {
      const std::vector<float> expected = product_of("ref", c, 1);
      const std::vector<float> found = product_of(isa, c, 2);
      // A sum of K products of normal numbers in another order.
      const double most = 1e-6 * std::sqrt(static_cast<double>(c.K) + 1) * 8;
      for (int64_t i = 0; i < c.M; ++i) {
        for (int64_t j = 0; j < c.N + 3; ++j) {
          if (c.upper_only && j < i) continue;
          const auto at = static_cast<size_t>(i * (c.N + 3) + j);
          ASSERT_NEAR(found[at], expected[at], most) << isa << " " << c.M << " " << i << " " << j;
        }
      }
    }
  }
}

TEST(Multiply, DoesNotDependOnThreads) {
  const Case c{200, 150, 1100, true, false, false};
  for (const std::string_view isa : runnable_isas()) {
    EXPECT_EQ(product_of(isa, c, 1), product_of(isa, c, 3)) << isa;
  }
}

}  // namespace
}  // namespace tandem
