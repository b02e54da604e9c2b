#include "compress/inverse_factor.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "kernels/multiply.h"
#include "kernels/table.h"

namespace tandem {
namespace {

constexpr int64_t kBlock = 64;
constexpr int64_t kColumnsPerTask = 256;

// row -= factor * other, from `first` up to `last`.
void subtract(float* row, float factor, const float* other, int64_t first, int64_t last) {
  for (int64_t j = first; j < last; ++j) row[j] -= factor * other[j];
}

// a = R^T R in place: the upper triangle becomes R. False when a pivot is not positive.
bool factorize(float* a, int64_t n, Multiply multiply, ThreadPool& pool) {
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, n);
    for (int64_t i = begin; i < end; ++i) {
      float* row = a + i * n;
      for (int64_t p = begin; p < i; ++p) subtract(row, a[p * n + i], a + p * n, i, end);
      if (!(row[i] > 0) || !std::isfinite(row[i])) return false;
      const float inverse = 1.0f / std::sqrt(row[i]);
      for (int64_t j = i; j < end; ++j) row[j] *= inverse;
    }
    // The block's rows to the right: R11^T X = A12.
    pool.parallel_for(n - end, kColumnsPerTask, [&](int64_t first, int64_t last, int) {
      for (int64_t i = begin; i < end; ++i) {
        float* row = a + i * n;
        for (int64_t p = begin; p < i; ++p) {
          subtract(row, a[p * n + i], a + p * n, end + first, end + last);
        }
        const float inverse = 1.0f / row[i];
        for (int64_t j = end + first; j < end + last; ++j) row[j] *= inverse;
      }
    });
    const MatrixView right{a + begin * n + end, n};
    multiply(pool, {n - end, n - end, end - begin, right.transposed(), right, a + end * n + end, n,
                    -1.0f, /*upper_only=*/true});
  }
  return true;
}

// R, 0 below its diagonal, becomes R^-1, by blocks of rows from the bottom.
void invert_upper(float* r, int64_t n, Multiply multiply, ThreadPool& pool) {
  std::vector<float> product;
  for (int64_t begin = (n - 1) / kBlock * kBlock; begin >= 0; begin -= kBlock) {
    const int64_t end = std::min(begin + kBlock, n), size = end - begin, rest = n - end;
    product.assign(static_cast<size_t>(size * rest), 0.0f);
    multiply(pool, {size, rest, rest, {r + begin * n + end, n}, {r + end * n + end, n},
                    product.data(), rest, -1.0f});
    for (int64_t i = 0; i < size; ++i) {
      std::copy_n(product.data() + i * rest, rest, r + (begin + i) * n + end);
    }
    // Back substitution with the block itself, for its own columns and those to the right.
    std::vector<float> block(static_cast<size_t>(size * size));
    for (int64_t i = 0; i < size; ++i) {
      float* row = r + (begin + i) * n;
      std::copy_n(row + begin, size, block.data() + i * size);
      std::fill_n(row + begin, size, 0.0f);
      row[begin + i] = 1.0f;
    }
    pool.parallel_for(n - begin, kColumnsPerTask, [&](int64_t first, int64_t last, int) {
      for (int64_t i = size - 1; i >= 0; --i) {
        float* row = r + (begin + i) * n;
        for (int64_t p = i + 1; p < size; ++p) {
          subtract(row, block[static_cast<size_t>(i * size + p)], r + (begin + p) * n,
                   begin + first, begin + last);
        }
        const float inverse = 1.0f / block[static_cast<size_t>(i * size + i)];
        for (int64_t j = begin + first; j < begin + last; ++j) row[j] *= inverse;
      }
    });
  }
}

// Element (i, j) changes places with (n-1-j, n-1-i): an upper triangle stays one.
void transpose_about_antidiagonal(float* a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i; j < n - 1 - i; ++j) std::swap(a[i * n + j], a[(n - 1 - j) * n + n - 1 - i]);
  }
}

double mean_diagonal(const InputStatistics& inputs, const std::vector<uint8_t>& dead) {
  double sum = 0;
  for (int64_t k = 0; k < inputs.K; ++k) {
    sum += dead[static_cast<size_t>(k)] != 0 ? 1.0 : inputs.power(k);
  }
  return sum / static_cast<double>(inputs.K);
}

// The damped H in reversed order.
void fill_reversed(const InputStatistics& inputs, double added, InverseFactor* factor) {
  const int64_t K = inputs.K;
  for (int64_t i = 0; i < K; ++i) {
    const int64_t channel = factor->channel(K - 1 - i);
    const float* from = inputs.gram_row(channel);
    float* to = factor->upper.data() + i * K;
    for (int64_t j = 0; j < K; ++j) to[j] = from[factor->channel(K - 1 - j)];
    if (factor->dead[static_cast<size_t>(channel)] != 0) to[i] = 1.0f;
    to[i] += static_cast<float>(added);
  }
}

}  // namespace

InverseFactor inverse_factor(const InputStatistics& inputs, double damping,
                             std::vector<int32_t> order, ThreadPool& pool) {
  const int64_t K = inputs.K;
  CHECK(static_cast<int64_t>(inputs.gram.size()) == K * K, "gram {} K {}", inputs.gram.size(), K);
  CHECK(order.empty() || static_cast<int64_t>(order.size()) == K, "order {}", order.size());
  const Multiply multiply = find_multiply(best_isa());
  InverseFactor factor;
  factor.K = K;
  factor.order = std::move(order);
  factor.upper.resize(static_cast<size_t>(K * K));
  factor.dead = dead_inputs(inputs);
  factor.damping = find_damping(inputs, factor.dead, damping, [&](double added) {
    fill_reversed(inputs, added, &factor);
    return factorize(factor.upper.data(), K, multiply, pool);
  });
  for (int64_t i = 1; i < K; ++i) std::fill_n(factor.upper.data() + i * K, i, 0.0f);
  invert_upper(factor.upper.data(), K, multiply, pool);
  transpose_about_antidiagonal(factor.upper.data(), K);
  return factor;
}

std::vector<uint8_t> dead_inputs(const InputStatistics& inputs) {
  std::vector<uint8_t> dead(static_cast<size_t>(inputs.K));
  for (int64_t k = 0; k < inputs.K; ++k) dead[static_cast<size_t>(k)] = inputs.power(k) == 0.0f;
  return dead;
}

double find_damping(const InputStatistics& inputs, const std::vector<uint8_t>& dead,
                    double damping, const std::function<bool(double added)>& factorizes) {
  const double mean = mean_diagonal(inputs, dead);
  while (!factorizes(damping * mean)) {
    if (damping >= 1) {
      fail(ErrorKind::bad_file,
           "calibration: the inputs' second moments cannot be factorized at a damping of {}: they "
           "hold NaN or infinity, or a number beyond float",
           damping);
    }
    damping = std::max(0.01, 2 * damping);
  }
  return damping;
}

std::vector<int32_t> act_order(const InputStatistics& inputs) {
  std::vector<int32_t> order(static_cast<size_t>(inputs.K));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int32_t a, int32_t b) {
    return inputs.power(a) > inputs.power(b);
  });
  return order;
}

std::vector<int32_t> group_aware_order(const InputStatistics& inputs, int64_t group) {
  const std::vector<int32_t> sorted = act_order(inputs);
  // In falling order each channel joins its group; groups stand in the order of their first.
  std::vector<std::vector<int32_t>> groups(static_cast<size_t>(inputs.K / group));
  std::vector<size_t> found;
  for (const int32_t channel : sorted) {
    auto& members = groups[static_cast<size_t>(channel / group)];
    if (members.empty()) found.push_back(static_cast<size_t>(channel / group));
    members.push_back(channel);
  }
  std::vector<int32_t> order;
  for (const size_t g : found) order.insert(order.end(), groups[g].begin(), groups[g].end());
  return order;
}

}  // namespace tandem
