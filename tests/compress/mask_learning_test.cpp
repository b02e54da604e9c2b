// Masks learned for one matrix: always two of four, better than the mask they start from, the same
// on any number of threads.
#include "compress/mask_learning.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "compress/masked_refit.h"
#include "compress/sparse_gpt.h"

namespace tandem {
namespace {

struct Problem {
  Matrix w{16, 64};
  InputStatistics inputs;

  Problem() {
    Random random(11);
    for (float& x : w.values) x = static_cast<float>(random.normal());
    inputs.K = w.K;
    inputs.num_tokens = 256;
    inputs.gram.resize(static_cast<size_t>(w.K * w.K));
    for (int64_t t = 0; t < inputs.num_tokens; ++t) {
      // Neighbours are nearly alike: which of them is kept is a question of all four together.
      std::vector<double> x;
      for (int64_t k = 0; k < w.K; ++k) {
        x.push_back(k % 2 == 0 ? random.normal() : 0.9 * x.back() + 0.4 * random.normal());
      }
      for (size_t a = 0; a < x.size(); ++a) {
        for (size_t b = 0; b < x.size(); ++b) {
          inputs.gram_row(static_cast<int64_t>(a))[b] += static_cast<float>(x[a] * x[b]);
        }
      }
    }
  }

  double error(const std::vector<uint8_t>& keep, ThreadPool& pool) const {
    Matrix masked = w;
    for (size_t i = 0; i < keep.size(); ++i) masked.values[i] *= static_cast<float>(keep[i]);
    return output_error(masked, w, inputs, pool);
  }
};

TEST(MaskLearning, BeatsTheMaskItStartsFrom) {
  const Problem problem;
  ThreadPool pool(2, /*pin=*/false);
  const auto prior = wanda_mask(problem.w, problem.inputs, pool);
  const auto keep = learn_mask(problem.w, prior, problem.inputs, {.seed = 1}, pool);
  for (size_t i = 0; i < keep.size(); i += 4) {
    EXPECT_EQ(keep[i] + keep[i + 1] + keep[i + 2] + keep[i + 3], 2) << i;
  }
  EXPECT_LT(problem.error(keep, pool), 0.9 * problem.error(prior, pool));
}

TEST(MaskLearning, IsTheSameOnAnyNumberOfThreads) {
  const Problem problem;
  ThreadPool one(1, /*pin=*/false), three(3, /*pin=*/false);
  const MaskLearning options{.iterations = 20, .seed = 5};
  const auto prior = wanda_mask(problem.w, problem.inputs, one);
  EXPECT_EQ(learn_mask(problem.w, prior, problem.inputs, options, one),
            learn_mask(problem.w, prior, problem.inputs, options, three));
}

}  // namespace
}  // namespace tandem
