#include "compress/gptq.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/multiply.h"
#include "kernels/table.h"

namespace tandem {
namespace {

constexpr int64_t kBlockColumns = 128;
constexpr int64_t kRowsPerTask = 16;

// One matrix on its way. Positions count in the factor's order, channels in the inputs'.
class Rounding {
 public:
  Rounding(Matrix w, const std::vector<uint8_t>& keep, const InverseFactor& factor,
           const GptqOptions& options, ThreadPool& pool)
      : factor_(factor),
        options_(options),
        pool_(pool),
        multiply_(find_multiply(best_isa())),
        K_(w.K),
        group_(options.grid.group_size(w.K)),
        is_static_(options.static_groups),
        out_(options.grid, w.N, w.K) {
    if (options.order == ColumnOrder::act && !is_static_) out_.columns = factor.order;
    take_in_order(std::move(w), keep);
  }

  GridMatrix run() {
    // Whole groups, so that a group is fitted when all errors before it have arrived.
    const int64_t block = group_ < kBlockColumns ? kBlockColumns / group_ * group_ : kBlockColumns;
    std::vector<float> errors(static_cast<size_t>(out_.N * block));
    for (int64_t begin = 0; begin < K_; begin += block) {
      const int64_t end = std::min(begin + block, K_), count = end - begin;
      pool_.parallel_for(out_.N, kRowsPerTask, [&](int64_t first, int64_t last, int) {
        for (int64_t n = first; n < last; ++n) round_block(n, begin, end, errors.data() + n * count);
      });
      multiply_(pool_, {out_.N, K_ - end, count, {errors.data(), count},
                        {factor_.row(begin) + end, K_}, w_.values.data() + end, K_, -1.0f});
    }
    return std::move(out_);
  }

 private:
  bool is_kept(int64_t n, int64_t position) const {
    return keep_.empty() || keep_[static_cast<size_t>(n * K_ + position)] != 0;
  }
  // Where the code of a position is stored.
  int64_t column_of(int64_t position) const {
    return out_.columns.empty() ? factor_.channel(position) : position;
  }
  GroupFit fit(const float* w) const {
    return options_.search ? search_group(options_.grid, w, group_)
                           : fit_group(options_.grid, w, group_);
  }

  // Rows in the factor's order, dead inputs' weights 0; static groups are fitted on the way.
  void take_in_order(Matrix w, const std::vector<uint8_t>& keep) {
    if (!keep.empty()) keep_.resize(keep.size());
    pool_.parallel_for(w.N, kRowsPerTask, [&](int64_t first, int64_t last, int) {
      std::vector<float> row(static_cast<size_t>(K_));
      for (int64_t n = first; n < last; ++n) {
        float* values = w.row(n);
        for (int64_t k = 0; k < K_; ++k) {
          const bool pruned = !keep.empty() && keep[static_cast<size_t>(n * K_ + k)] == 0;
          if (pruned || factor_.dead[static_cast<size_t>(k)] != 0) values[k] = 0.0f;
        }
        if (is_static_) {
          for (int64_t g = 0; g < out_.groups(); ++g) out_.set_fit(n, g, fit(values + g * group_));
        }
        std::copy_n(values, K_, row.data());
        for (int64_t p = 0; p < K_; ++p) {
          const int64_t channel = factor_.channel(p);
          values[p] = row[static_cast<size_t>(channel)];
          if (!keep.empty()) {
            keep_[static_cast<size_t>(n * K_ + p)] = keep[static_cast<size_t>(n * K_ + channel)];
          }
        }
      }
    });
    w_ = std::move(w);
  }

  // The group that begins at a position, of the row as the feedback has left it.
  void fit_current_group(int64_t n, int64_t position) {
    const float* w = w_.row(n) + position;
    if (keep_.empty()) return out_.set_fit(n, column_of(position) / group_, fit(w));
    std::vector<float> kept(w, w + group_);
    for (int64_t i = 0; i < group_; ++i) {
      if (!is_kept(n, position + i)) kept[static_cast<size_t>(i)] = 0.0f;
    }
    out_.set_fit(n, column_of(position) / group_, fit(kept.data()));
  }

  // errors [end - begin] of row n.
  void round_block(int64_t n, int64_t begin, int64_t end, float* errors) {
    float* w = w_.row(n);
    for (int64_t i = begin; i < end; ++i) {
      if (!is_static_ && i % group_ == 0) fit_current_group(n, i);
      const int64_t column = column_of(i);
      const GroupFit group = out_.fit(n, column / group_);
      const uint8_t code = is_kept(n, i) ? code_of(options_.grid, group, w[i]) : group.zero;
      out_.codes[static_cast<size_t>(n * K_ + column)] = code;
      const float* u = factor_.row(i);
      const float error = (w[i] - value_of(group, code)) / u[i];
      for (int64_t j = i + 1; j < end; ++j) w[j] -= error * u[j];
      errors[i - begin] = error;
    }
  }

  const InverseFactor& factor_;
  const GptqOptions& options_;
  ThreadPool& pool_;
  const Multiply multiply_;
  const int64_t K_, group_;
  const bool is_static_;
  Matrix w_;                   // [N, K] in the factor's order
  std::vector<uint8_t> keep_;  // the same; empty: dense
  GridMatrix out_;
};

}  // namespace

std::vector<int32_t> column_order(const GptqOptions& options, const InputStatistics& inputs) {
  switch (options.order) {
    case ColumnOrder::natural: return {};
    case ColumnOrder::group_aware:
      return group_aware_order(inputs, options.grid.group_size(inputs.K));
    case ColumnOrder::act: return act_order(inputs);
  }
  return {};
}

GridMatrix gptq(Matrix w, const std::vector<uint8_t>& keep, const InverseFactor& factor,
                const GptqOptions& options, ThreadPool& pool) {
  CHECK(factor.K == w.K && (keep.empty() || keep.size() == w.values.size()), "K {} {} keep {}",
        factor.K, w.K, keep.size());
  return Rounding(std::move(w), keep, factor, options, pool).run();
}

}  // namespace tandem
