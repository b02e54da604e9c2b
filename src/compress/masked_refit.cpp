#include "compress/masked_refit.h"

#include <algorithm>
#include <atomic>

#include "base/error.h"
#include "kernels/multiply.h"
#include "kernels/table.h"

namespace tandem {
namespace {

constexpr int64_t kRowsPerTask = 16;

double dot(const float* a, const float* b, int64_t K) {
  double sum = 0;
  for (int64_t k = 0; k < K; ++k) sum += double{a[k]} * b[k];
  return sum;
}

// Conjugate gradients on all rows at once.
class Solver {
 public:
  Solver(Matrix* w, const std::vector<uint8_t>& keep, const InputStatistics& inputs,
         const RefitOptions& options, ThreadPool& pool)
      : w_(*w),
        keep_(keep),
        inputs_(inputs),
        options_(options),
        pool_(pool),
        multiply_(find_multiply(best_isa())),
        residual_(w->N, w->K),
        direction_(w->N, w->K),
        product_(w->N, w->K),
        rows_(static_cast<size_t>(w->N)),
        inverse_diagonal_(static_cast<size_t>(w->K)) {
    double mean = 0;
    for (int64_t k = 0; k < w->K; ++k) mean += inputs.gram_row(k)[k] / static_cast<double>(w->K);
    // Inputs that were always 0 leave their weights as they are.
    added_ = static_cast<float>(options.damping * mean > 0 ? options.damping * mean : 1.0);
    for (int64_t k = 0; k < w->K; ++k) {
      inverse_diagonal_[static_cast<size_t>(k)] = 1.0f / (inputs.gram_row(k)[k] + added_);
    }
  }

  int64_t run(const Matrix& original) {
    start(original);
    int64_t iteration = 0;
    while (iteration < options_.max_iterations && num_active_ > 0) {
      ++iteration;
      times_gram(direction_);
      advance();
    }
    return iteration;
  }

 private:
  struct Row {
    double rz = 0, target = 0;
    bool done = false;
  };

  // product = x H
  void times_gram(const Matrix& x) {
    std::ranges::fill(product_.values, 0.0f);
    multiply_(pool_, {x.N, x.K, x.K, {x.values.data(), x.K}, {inputs_.gram.data(), x.K},
                      product_.values.data(), x.K});
    pool_.parallel_for(x.N, kRowsPerTask, [&](int64_t first, int64_t last, int) {
      for (int64_t i = first * x.K; i < last * x.K; ++i) {
        product_.values[static_cast<size_t>(i)] += added_ * x.values[static_cast<size_t>(i)];
      }
    });
  }

  void start(const Matrix& original) {
    for (size_t i = 0; i < w_.values.size(); ++i) {
      if (keep_[i] == 0) w_.values[i] = 0.0f;
      direction_.values[i] = original.values[i] - w_.values[i];
    }
    times_gram(direction_);
    num_active_ = w_.N;
    pool_.parallel_for(w_.N, kRowsPerTask, [&](int64_t first, int64_t last, int) {
      for (int64_t n = first; n < last; ++n) {
        const uint8_t* keep = keep_.data() + n * w_.K;
        float *r = residual_.row(n), *p = direction_.row(n);
        for (int64_t k = 0; k < w_.K; ++k) {
          r[k] = keep[k] != 0 ? product_.row(n)[k] : 0.0f;
          p[k] = r[k] * inverse_diagonal_[static_cast<size_t>(k)];
        }
        Row& row = rows_[static_cast<size_t>(n)];
        row.rz = dot(r, p, w_.K);
        row.target = row.rz * options_.tolerance * options_.tolerance;
        if (row.rz <= 0) finish(&row, p);
      }
    });
  }

  void finish(Row* row, float* direction) {
    row->done = true;
    std::fill_n(direction, w_.K, 0.0f);
    num_active_.fetch_sub(1, std::memory_order_relaxed);
  }

  // One step of each row along its direction, whose product with H is there.
  void advance() {
    pool_.parallel_for(w_.N, kRowsPerTask, [&](int64_t first, int64_t last, int) {
      for (int64_t n = first; n < last; ++n) {
        Row& row = rows_[static_cast<size_t>(n)];
        if (row.done) continue;
        const uint8_t* keep = keep_.data() + n * w_.K;
        float *r = residual_.row(n), *p = direction_.row(n), *Hp = product_.row(n), *w = w_.row(n);
        const double curvature = dot(p, Hp, w_.K);
        if (!(curvature > 0)) {
          finish(&row, p);
          continue;
        }
        const auto alpha = static_cast<float>(row.rz / curvature);
        double rz = 0;
        for (int64_t k = 0; k < w_.K; ++k) {
          w[k] += alpha * p[k];
          r[k] = keep[k] != 0 ? r[k] - alpha * Hp[k] : 0.0f;
          rz += double{r[k]} * r[k] * inverse_diagonal_[static_cast<size_t>(k)];
        }
        const auto beta = static_cast<float>(rz / row.rz);
        row.rz = rz;
        if (rz <= row.target) {
          finish(&row, p);
          continue;
        }
        for (int64_t k = 0; k < w_.K; ++k) {
          p[k] = r[k] * inverse_diagonal_[static_cast<size_t>(k)] + beta * p[k];
        }
      }
    });
  }

  Matrix& w_;
  const std::vector<uint8_t>& keep_;
  const InputStatistics& inputs_;
  const RefitOptions& options_;
  ThreadPool& pool_;
  const Multiply multiply_;
  Matrix residual_, direction_, product_;  // [N, K], residual and direction 0 outside the mask
  std::vector<Row> rows_;
  std::vector<float> inverse_diagonal_;  // [K]
  float added_ = 0;
  std::atomic<int64_t> num_active_{0};
};

void check_shapes(const Matrix& w, const Matrix& original, const InputStatistics& inputs) {
  CHECK(w.N == original.N && w.K == original.K && inputs.K == w.K && !inputs.gram.empty(),
        "[{}, {}] and [{}, {}], inputs {}", w.N, w.K, original.N, original.K, inputs.K);
}

}  // namespace

int64_t refit_survivors(Matrix* w, const Matrix& original, const std::vector<uint8_t>& keep,
                        const InputStatistics& inputs, const RefitOptions& options,
                        ThreadPool& pool) {
  check_shapes(*w, original, inputs);
  CHECK(keep.size() == w->values.size(), "{} of {}", keep.size(), w->values.size());
  return Solver(w, keep, inputs, options, pool).run(original);
}

double output_error(const Matrix& w, const Matrix& original, const InputStatistics& inputs,
                    ThreadPool& pool) {
  check_shapes(w, original, inputs);
  Matrix change(w.N, w.K), product(w.N, w.K);
  for (size_t i = 0; i < w.values.size(); ++i) {
    change.values[i] = w.values[i] - original.values[i];
  }
  find_multiply(best_isa())(pool, {w.N, w.K, w.K, {change.values.data(), w.K},
                                   {inputs.gram.data(), w.K}, product.values.data(), w.K});
  double sum = 0;
  for (int64_t n = 0; n < w.N; ++n) sum += dot(change.row(n), product.row(n), w.K);
  return sum;
}

}  // namespace tandem
