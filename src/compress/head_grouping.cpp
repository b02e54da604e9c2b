#include "compress/head_grouping.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace tandem {
namespace {

constexpr int kRestarts = 200;
constexpr double kLeastGain = 1e-12;  // below it a swap is rounding

// What a head gives the group of place `group`, the head at place `but` left out.
double affinity(const std::vector<double>& similarity, const std::vector<int64_t>& order,
                int64_t head, int64_t group, int64_t size, int64_t but) {
  const auto G = static_cast<int64_t>(order.size());
  double sum = 0;
  for (int64_t place = group * size; place < (group + 1) * size; ++place) {
    if (place == but) continue;
    sum += similarity[static_cast<size_t>(head * G + order[static_cast<size_t>(place)])];
  }
  return sum;
}

// Makes the swap of two heads of different groups that gains most; false when none gains.
bool climb(const std::vector<double>& similarity, int64_t size, std::vector<int64_t>* order) {
  const auto G = static_cast<int64_t>(order->size());
  double best = kLeastGain;
  std::pair<size_t, size_t> swap;
  for (int64_t a = 0; a < G; ++a) {
    for (int64_t b = (a / size + 1) * size; b < G; ++b) {
      const int64_t x = (*order)[static_cast<size_t>(a)], y = (*order)[static_cast<size_t>(b)];
      const double gain = affinity(similarity, *order, y, a / size, size, a) +
                          affinity(similarity, *order, x, b / size, size, b) -
                          affinity(similarity, *order, x, a / size, size, a) -
                          affinity(similarity, *order, y, b / size, size, b);
      if (gain <= best) continue;
      best = gain;
      swap = {static_cast<size_t>(a), static_cast<size_t>(b)};
    }
  }
  if (swap.first == swap.second) return false;
  std::swap((*order)[swap.first], (*order)[swap.second]);
  return true;
}

void sort_groups(int64_t size, std::vector<int64_t>* order) {
  std::vector<std::vector<int64_t>> groups;
  for (auto it = order->begin(); it != order->end(); it += size) {
    groups.emplace_back(it, it + size);
    std::sort(groups.back().begin(), groups.back().end());
  }
  std::sort(groups.begin(), groups.end());
  order->clear();
  for (const auto& group : groups) order->insert(order->end(), group.begin(), group.end());
}

}  // namespace

double grouping_score(const std::vector<double>& similarity, const std::vector<int64_t>& order,
                      int64_t num_groups) {
  const auto G = static_cast<int64_t>(order.size()), size = G / num_groups;
  double twice = 0;
  for (int64_t place = 0; place < G; ++place) {
    twice += affinity(similarity, order, order[static_cast<size_t>(place)], place / size, size,
                      place);
  }
  return twice / 2;
}

std::vector<int64_t> group_heads(const std::vector<double>& similarity, int64_t num_heads,
                                 int64_t num_groups, uint64_t seed) {
  CHECK(num_groups > 0 && num_heads % num_groups == 0 &&
            static_cast<int64_t>(similarity.size()) == num_heads * num_heads,
        "{} heads, {} groups, {} similarities", num_heads, num_groups, similarity.size());
  const int64_t size = num_heads / num_groups;
  std::vector<int64_t> order(static_cast<size_t>(num_heads)), best;
  std::iota(order.begin(), order.end(), int64_t{0});
  Random random(seed);
  double best_score = 0;
  for (int start = 0; start <= kRestarts; ++start) {
    while (climb(similarity, size, &order)) {
    }
    const double score = grouping_score(similarity, order, num_groups);
    if (best.empty() || score > best_score + kLeastGain) {
      best = order;
      best_score = score;
    }
    for (size_t i = order.size() - 1; i > 0; --i) {
      std::swap(order[i], order[random.below(i + 1)]);
    }
  }
  sort_groups(size, &best);
  return best;
}

}  // namespace tandem
