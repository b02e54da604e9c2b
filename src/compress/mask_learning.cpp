#include "compress/mask_learning.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/random.h"
#include "compress/gumbel.h"
#include "compress/mask24.h"
#include "kernels/multiply.h"
#include "kernels/table.h"

namespace tandem {
namespace {

constexpr int64_t kRowsPerTask = 8;
constexpr double kFirstTemperature = 4.0, kLastTemperature = 0.05;
constexpr double kFirstScale = 100.0, kLastScale = 500.0;  // of logits per gate
constexpr double kGateDeviation = 0.01;
constexpr float kBeta1 = 0.9f, kBeta2 = 0.95f, kEpsilon = 1e-12f;  // Adam's
constexpr size_t kNumPatterns = 6;

using Patterns = std::array<float, kNumPatterns>;

struct Gate {
  Patterns value{}, first{}, second{};  // and Adam's two moments
};

// One matrix whose mask is being learned.
class Learner {
 public:
  Learner(const Matrix& w, const InputStatistics& inputs, const MaskLearning& options,
          ThreadPool& pool)
      : w_(w),
        inputs_(inputs),
        options_(options),
        pool_(pool),
        multiply_(find_multiply(best_isa())),
        gates_(w.values.size() / 4),
        probabilities_(gates_.size()),
        change_(w.N, w.K),
        product_(w.N, w.K) {}

  void start(const std::vector<uint8_t>& prior) {
    const auto pull = static_cast<float>(options_.prior_strength * kGateDeviation);
    for_rows([&](int64_t n, Random* random) {
      for (int64_t g = n * groups(); g < (n + 1) * groups(); ++g) {
        Gate& gate = gates_[static_cast<size_t>(g)];
        for (size_t i = 0; i < kNumPatterns; ++i) {
          int shared = 0;
          for (int j = 0; j < 4; ++j) {
            shared += kPatterns24[i] >> j & prior[static_cast<size_t>(4 * g + j)];
          }
          gate.value[i] = static_cast<float>(kGateDeviation * random->normal()) +
                          static_cast<float>(shared - 1) * pull;
        }
      }
    }, 0);
  }

  void run() {
    for (int64_t i = 0; i < options_.iterations; ++i) {
      const double t = static_cast<double>(i) / static_cast<double>(options_.iterations);
      const double scale = kFirstScale + (kLastScale - kFirstScale) * t;
      const double temperature = kFirstTemperature + (kLastTemperature - kFirstTemperature) * t;
      const auto sharpness = static_cast<float>(scale / temperature);
      forward(static_cast<float>(scale), static_cast<float>(1 / temperature), i);
      std::ranges::fill(product_.values, 0.0f);
      multiply_(pool_, {w_.N, w_.K, w_.K, {change_.values.data(), w_.K},
                        {inputs_.gram.data(), w_.K}, product_.values.data(), w_.K});
      const double fall = 0.1 + 0.45 * (1 + std::cos(std::numbers::pi * t));
      backward(sharpness, static_cast<float>(options_.rate * fall), i + 1);
    }
  }

  std::vector<uint8_t> mask() const {
    std::vector<uint8_t> keep(w_.values.size());
    for (size_t g = 0; g < gates_.size(); ++g) {
      const Patterns& value = gates_[g].value;
      const auto best = std::max_element(value.begin(), value.end()) - value.begin();
      for (size_t j = 0; j < 4; ++j) keep[4 * g + j] = kPatterns24[best] >> j & 1;
    }
    return keep;
  }

 private:
  int64_t groups() const { return w_.K / 4; }

  // f(n, random) for each row; random is the row's own in this iteration.
  template <typename F>
  void for_rows(F&& f, int64_t iteration) {
    pool_.parallel_for(w_.N, kRowsPerTask, [&](int64_t first, int64_t last, int) {
      for (int64_t n = first; n < last; ++n) {
        Random seeds(options_.seed + static_cast<uint64_t>(iteration * w_.N + n));
        Random random(seeds.next());
        f(n, &random);
      }
    });
  }

  // p = softmax((gate * scale + Gumbel) / temperature); change = w * (sum of p * pattern - 1)
  void forward(float scale, float inverse_temperature, int64_t iteration) {
    for_rows([&](int64_t n, Random* random) {
      for (int64_t g = n * groups(); g < (n + 1) * groups(); ++g) {
        Patterns p = gumbel_.draw(random);
        const Patterns& gate = gates_[static_cast<size_t>(g)].value;
        float largest = -INFINITY, sum = 0;
        for (size_t i = 0; i < kNumPatterns; ++i) {
          p[i] = (gate[i] * scale + p[i]) * inverse_temperature;
          largest = std::max(largest, p[i]);
        }
        for (float& x : p) sum += x = std::exp(x - largest);
        float kept[4] = {};
        for (size_t i = 0; i < kNumPatterns; ++i) {
          p[i] /= sum;
          for (int j = 0; j < 4; ++j) kept[j] += kPatterns24[i] >> j & 1 ? p[i] : 0.0f;
        }
        probabilities_[static_cast<size_t>(g)] = p;
        for (size_t j = 0; j < 4; ++j) {
          const size_t at = static_cast<size_t>(4 * g) + j;
          change_.values[at] = w_.values[at] * (kept[j] - 1.0f);
        }
      }
    }, iteration + 1);
  }

  // One step of Adam down tr(change gram change^T) / tokens, whose gradient by the mask is
  // 2 w * product / tokens.
  void backward(float sharpness, float rate, int64_t step) {
    const float factor = 2.0f / static_cast<float>(std::max<int64_t>(inputs_.num_tokens, 1));
    const float unbias1 = 1.0f / (1.0f - std::pow(kBeta1, static_cast<float>(step)));
    const float unbias2 = 1.0f / (1.0f - std::pow(kBeta2, static_cast<float>(step)));
    pool_.parallel_for(w_.N, kRowsPerTask, [&](int64_t first, int64_t last, int) {
      for (int64_t g = first * groups(); g < last * groups(); ++g) {
        const size_t at = static_cast<size_t>(4 * g);
        float by_element[4];
        for (size_t j = 0; j < 4; ++j) {
          by_element[j] = factor * w_.values[at + j] * product_.values[at + j];
        }
        const Patterns& p = probabilities_[static_cast<size_t>(g)];
        Patterns gradient{};
        float mean = 0;
        for (size_t i = 0; i < kNumPatterns; ++i) {
          for (int j = 0; j < 4; ++j) gradient[i] += kPatterns24[i] >> j & 1 ? by_element[j] : 0.0f;
          mean += p[i] * gradient[i];
        }
        Gate& gate = gates_[static_cast<size_t>(g)];
        for (size_t i = 0; i < kNumPatterns; ++i) {
          const float slope = sharpness * p[i] * (gradient[i] - mean);
          gate.first[i] += (1 - kBeta1) * (slope - gate.first[i]);
          gate.second[i] += (1 - kBeta2) * (slope * slope - gate.second[i]);
          gate.value[i] -= rate * gate.first[i] * unbias1 /
                           (std::sqrt(gate.second[i] * unbias2) + kEpsilon);
        }
      }
    });
  }

  const Matrix& w_;
  const InputStatistics& inputs_;
  const MaskLearning& options_;
  ThreadPool& pool_;
  const Multiply multiply_;
  const GumbelTable gumbel_;
  std::vector<Gate> gates_;              // [N K/4]
  std::vector<Patterns> probabilities_;  // [N K/4]
  Matrix change_, product_;              // [N, K]
};

}  // namespace

std::vector<uint8_t> learn_mask(const Matrix& w, const std::vector<uint8_t>& prior,
                                const InputStatistics& inputs, const MaskLearning& options,
                                ThreadPool& pool) {
  CHECK(w.K % 4 == 0 && prior.size() == w.values.size() && inputs.K == w.K &&
            !inputs.gram.empty(),
        "K {} prior {} inputs {}", w.K, prior.size(), inputs.K);
  Learner learner(w, inputs, options, pool);
  learner.start(prior);
  learner.run();
  return learner.mask();
}

}  // namespace tandem
