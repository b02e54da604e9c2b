#include "compress/mask_annealing.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "compress/gumbel.h"
#include "compress/mask24.h"
#include "kernels/multiply.h"
#include "kernels/table.h"

namespace tandem {
namespace {

constexpr int64_t kBlockColumns = 128;
constexpr int64_t kRowsPerTask = 8;
constexpr double kHeatedShare = 0.8;                                             // of the sweeps
constexpr int kPlaces[6][2] = {{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}};  // kPatterns24's

// H of four neighbouring columns, and its inverse for each pair of them.
struct GroupSystem {
  float h[4][4];
  struct Inverse {
    float first, both, second;
  } inverse[6];
};

class Annealer {
 public:
  Annealer(Matrix* w, std::vector<uint8_t>* keep, const Matrix& original,
           const InputStatistics& inputs, const MaskAnnealing& options, ThreadPool& pool)
      : w_(*w),
        keep_(*keep),
        original_(original),
        inputs_(inputs),
        options_(options),
        pool_(pool),
        multiply_(find_multiply(best_isa())),
        gradient_(w->N, w->K),
        change_(w->N, w->K),
        temperatures_(static_cast<size_t>(w->N)) {
    double mean = 0;
    for (int64_t k = 0; k < w->K; ++k) mean += inputs.gram_row(k)[k] / static_cast<double>(w->K);
    added_ = static_cast<float>(options.damping * mean > 0 ? options.damping * mean : 1.0);
    for (int64_t g = 0; g < w->K / 4; ++g) systems_.push_back(system_of(4 * g));
  }

  void run() {
    const Matrix first_weights = w_;
    const std::vector<uint8_t> first_keep = keep_;
    const std::vector<double> first_errors = errors();
    for (int64_t sweep = 0; sweep < options_.sweeps; ++sweep) {
      const double share = static_cast<double>(sweep) / static_cast<double>(options_.sweeps);
      set_temperatures(options_.heat * std::max(0.0, 1 - share / kHeatedShare));
      for (int64_t k = 0; k < w_.K; k += kBlockColumns) visit_block(sweep, k);
    }
    const std::vector<double> last_errors = errors();
    for (int64_t n = 0; n < w_.N; ++n) {
      const auto row = static_cast<size_t>(n);
      if (last_errors[row] < first_errors[row]) continue;
      std::copy_n(first_weights.row(n), w_.K, w_.row(n));
      std::copy_n(first_keep.begin() + n * w_.K, w_.K, keep_.begin() + n * w_.K);
    }
  }

 private:
  GroupSystem system_of(int64_t k) const {
    GroupSystem system;
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < 4; ++j) {
        system.h[i][j] = inputs_.gram_row(k + i)[k + j] + (i == j ? added_ : 0.0f);
      }
    }
    for (size_t p = 0; p < 6; ++p) {
      const auto [i, j] = kPlaces[p];
      const double a = system.h[i][i], b = system.h[i][j], c = system.h[j][j];
      const double determinant = a * c - b * b;
      system.inverse[p] = {static_cast<float>(c / determinant),
                           static_cast<float>(-b / determinant),
                           static_cast<float>(a / determinant)};
    }
    return system;
  }

  // Makes gradient = (w - original) H anew and gives each row's error.
  std::vector<double> errors() {
    for (size_t i = 0; i < w_.values.size(); ++i) {
      change_.values[i] = w_.values[i] - original_.values[i];
      gradient_.values[i] = added_ * change_.values[i];
    }
    multiply_(pool_, {w_.N,
                      w_.K,
                      w_.K,
                      {change_.values.data(), w_.K},
                      {inputs_.gram.data(), w_.K},
                      gradient_.values.data(),
                      w_.K});
    std::vector<double> out(static_cast<size_t>(w_.N));
    for (int64_t n = 0; n < w_.N; ++n) out[static_cast<size_t>(n)] = row_error(n);
    return out;
  }

  double row_error(int64_t n) const {
    double sum = 0;
    for (int64_t k = 0; k < w_.K; ++k) {
      sum += double{gradient_.row(n)[k]} * (w_.row(n)[k] - original_.row(n)[k]);
    }
    return sum;
  }

  void set_temperatures(double heat) {
    pool_.parallel_for(w_.N, kRowsPerTask, [&](int64_t first, int64_t last, int) {
      for (int64_t n = first; n < last; ++n) {
        const double share = row_error(n) / static_cast<double>(w_.K / 4);
        temperatures_[static_cast<size_t>(n)] = static_cast<float>(heat * std::max(share, 0.0));
      }
    });
  }

  // The groups of columns [begin, begin + kBlockColumns) of all rows. The other columns' gradient
  // follows in one product.
  void visit_block(int64_t sweep, int64_t begin) {
    const int64_t end = std::min(begin + kBlockColumns, w_.K), count = end - begin;
    pool_.parallel_for(w_.N, kRowsPerTask, [&](int64_t first, int64_t last, int) {
      for (int64_t n = first; n < last; ++n) {
        Random seeds(options_.seed + static_cast<uint64_t>((sweep * w_.K + begin) * w_.N + n));
        Random random(seeds.next());
        float local[kBlockColumns];
        std::copy_n(gradient_.row(n) + begin, count, local);
        float* change = change_.values.data() + n * count;
        for (int64_t k = begin; k < end; k += 4) {
          visit_group(n, k, local + (k - begin), change + (k - begin), &random);
          for (int64_t i = 0; i < 4; ++i) {
            const float step = change[k - begin + i];
            const float* h = inputs_.gram_row(k + i) + begin;
            for (int64_t j = 0; j < count; ++j) local[j] += step * h[j];
            local[k - begin + i] += step * added_;
          }
        }
        for (int64_t k = 0; k < count; ++k) gradient_.row(n)[begin + k] += added_ * change[k];
      }
    });
    multiply_(pool_, {w_.N,
                      w_.K,
                      count,
                      {change_.values.data(), count},
                      {inputs_.gram_row(begin), w_.K},
                      gradient_.values.data(),
                      w_.K});
  }

  // change[4] = what the four weights from column k of row n become, less what they were.
  void visit_group(int64_t n, int64_t k, const float* gradient, float* change, Random* random) {
    const GroupSystem& system = systems_[static_cast<size_t>(k / 4)];
    float* w = w_.row(n) + k;
    float pull[4];  // the gradient were all four 0
    for (int i = 0; i < 4; ++i) {
      pull[i] = gradient[i];
      for (int j = 0; j < 4; ++j) pull[i] -= system.h[i][j] * w[j];
    }
    const float temperature = temperatures_[static_cast<size_t>(n)];
    std::array<float, 6> noise{};
    if (temperature > 0) noise = gumbel_.draw(random);
    size_t best = 0;
    float lowest = INFINITY, values[2] = {};
    for (size_t p = 0; p < 6; ++p) {
      const auto& inverse = system.inverse[p];
      const float a = pull[kPlaces[p][0]], b = pull[kPlaces[p][1]];
      const float x = -(inverse.first * a + inverse.both * b);
      const float y = -(inverse.both * a + inverse.second * b);
      const float error = a * x + b * y - temperature * noise[p];
      if (!(error < lowest)) continue;
      lowest = error, best = p, values[0] = x, values[1] = y;
    }
    uint8_t* keep = keep_.data() + n * w_.K + k;
    for (int i = 0; i < 4; ++i) {
      keep[i] = kPatterns24[best] >> i & 1;
      const float next = i == kPlaces[best][0]   ? values[0]
                         : i == kPlaces[best][1] ? values[1]
                                                 : 0.0f;
      change[i] = next - w[i];
      w[i] = next;
    }
  }

  Matrix& w_;
  std::vector<uint8_t>& keep_;
  const Matrix& original_;
  const InputStatistics& inputs_;
  const MaskAnnealing& options_;
  ThreadPool& pool_;
  const Multiply multiply_;
  const GumbelTable gumbel_;
  std::vector<GroupSystem> systems_;  // [K/4]
  Matrix gradient_;                   // (w - original) H
  Matrix change_;                     // of a block's weights at this visit, [N, columns]
  std::vector<float> temperatures_;   // [N]
  float added_ = 0;                   // to the gram's diagonal
};

}  // namespace

void anneal_mask(Matrix* w, std::vector<uint8_t>* keep, const Matrix& original,
                 const InputStatistics& inputs, const MaskAnnealing& options, ThreadPool& pool) {
  CHECK(w->K % 4 == 0 && keep->size() == w->values.size() && original.N == w->N &&
            original.K == w->K && inputs.K == w->K && !inputs.gram.empty(),
        "[{}, {}] original [{}, {}] keep {} inputs {}", w->N, w->K, original.N, original.K,
        keep->size(), inputs.K);
  Annealer(w, keep, original, inputs, options, pool).run();
}

}  // namespace tandem
