#include "compress/sparse_gpt.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "compress/mask24.h"
#include "kernels/multiply.h"
#include "kernels/table.h"

namespace tandem {
namespace {

constexpr int64_t kBlockColumns = 128;
constexpr int64_t kRowsPerTask = 16;

void store_group(uint8_t kept, uint8_t* keep) {
  for (int j = 0; j < 4; ++j) keep[j] = kept >> j & 1;
}

// The two of four that cost most to prune.
uint8_t costliest(const float* w, int64_t k, const InverseFactor& factor) {
  float scores[4];
  for (int64_t j = 0; j < 4; ++j) {
    const float distance = w[k + j] / factor.row(k + j)[k + j];
    scores[j] = distance * distance;
  }
  return keep_highest(scores);
}

// Columns [begin, end) of one row. The mask is chosen here, or `keep` has it. errors [end - begin].
void prune_block(float* w, uint8_t* keep, bool chooses, int64_t begin, int64_t end,
                 const InverseFactor& factor, float* errors) {
  for (int64_t k = begin; k < end; ++k) {
    if (chooses && k % 4 == 0) store_group(costliest(w, k, factor), keep + k);
    errors[k - begin] = 0.0f;
    if (keep[k] != 0) continue;
    const float* u = factor.row(k);
    const float error = w[k] / u[k];
    w[k] = 0.0f;
    for (int64_t j = k + 1; j < end; ++j) w[j] -= error * u[j];
    errors[k - begin] = error;
  }
}

void prune(Matrix* w, std::vector<uint8_t>* keep, bool chooses, const InverseFactor& factor,
           ThreadPool& pool) {
  const int64_t N = w->N, K = w->K;
  CHECK(K % 4 == 0 && factor.K == K && factor.order.empty() && keep->size() == w->values.size(),
        "K {} factor {} keep {}", K, factor.K, keep->size());
  const Multiply multiply = find_multiply(best_isa());
  std::vector<float> errors(static_cast<size_t>(N * kBlockColumns));
  for (int64_t begin = 0; begin < K; begin += kBlockColumns) {
    const int64_t end = std::min(begin + kBlockColumns, K), count = end - begin;
    pool.parallel_for(N, kRowsPerTask, [&](int64_t first, int64_t last, int) {
      for (int64_t n = first; n < last; ++n) {
        for (int64_t k = begin; k < end; ++k) {
          if (factor.dead[static_cast<size_t>(k)] != 0) w->row(n)[k] = 0.0f;
        }
        prune_block(w->row(n), keep->data() + n * K, chooses, begin, end, factor,
                    errors.data() + n * count);
      }
    });
    multiply(pool, {N, K - end, count, {errors.data(), count}, {factor.row(begin) + end, K},
                    w->values.data() + end, K, -1.0f});
  }
}

}  // namespace

std::vector<uint8_t> wanda_mask(const Matrix& w, const InputStatistics& inputs, ThreadPool& pool) {
  const int64_t K = w.K;
  CHECK(K % 4 == 0 && inputs.K == K && !inputs.gram.empty(), "K {} inputs {}", K, inputs.K);
  std::vector<float> norms(static_cast<size_t>(K));
  for (int64_t k = 0; k < K; ++k) norms[static_cast<size_t>(k)] = std::sqrt(inputs.gram_row(k)[k]);
  std::vector<uint8_t> keep(w.values.size());
  pool.parallel_for(w.N, kRowsPerTask, [&](int64_t first, int64_t last, int) {
    for (int64_t n = first; n < last; ++n) {
      for (int64_t k = 0; k < K; k += 4) {
        float scores[4];
        for (int64_t j = 0; j < 4; ++j) {
          scores[j] = std::fabs(w.row(n)[k + j]) * norms[static_cast<size_t>(k + j)];
        }
        store_group(keep_highest(scores), keep.data() + n * K + k);
      }
    }
  });
  return keep;
}

std::vector<uint8_t> sparse_gpt(Matrix* w, const InverseFactor& factor, ThreadPool& pool) {
  std::vector<uint8_t> keep(w->values.size());
  prune(w, &keep, /*chooses=*/true, factor, pool);
  return keep;
}

void apply_mask_with_feedback(Matrix* w, const std::vector<uint8_t>& keep,
                              const InverseFactor& factor, ThreadPool& pool) {
  std::vector<uint8_t> copy = keep;
  prune(w, &copy, /*chooses=*/false, factor, pool);
}

}  // namespace tandem
