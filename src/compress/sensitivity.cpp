#include "compress/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "base/error.h"
#include "compress/input_statistics.h"
#include "compress/layer_forward.h"
#include "compress/output_error.h"
#include "kernels/table.h"

namespace tandem {
namespace {

constexpr int64_t kTokensAtATime = 4096;
constexpr int64_t kScoredEvery = 4;
constexpr double kLeastLogProbability = -16.0;

using Costs = std::vector<std::vector<double>>;

Matrix decoded(const Weight& weight, ThreadPool& pool) {
  Matrix w(weight.N, weight.K);
  pool.parallel_for(w.N, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) decode_row(weight, n, w.row(n));
  });
  return w;
}

Matrix rounded(const Matrix& w, const IntegerGrid& grid, ThreadPool& pool) {
  const GridMatrix codes = round_to_nearest(w, grid, pool);
  Matrix out(w.N, w.K);
  pool.parallel_for(w.N, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) decode_row(codes, n, out.row(n));
  });
  return out;
}

// Residual streams [T, C] side by side, each of its own variant of the model.
class Streams {
 public:
  Streams(const Checkpoint& source, const CalibrationRows& rows, int64_t num_rows, ThreadPool& pool)
      : config_(source.config),
        T_(num_rows * rows.length),
        forward_(config_, rows.length, std::max<int64_t>(num_rows, kTokensAtATime / rows.length),
                 pool),
        x_(static_cast<size_t>(T_ * config_.width)) {
    const Weight& embedding = source.weight("model.embed_tokens.weight");
    pool.parallel_for(T_, 64, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) {
        decode_row(embedding, rows.ids[static_cast<size_t>(t)], x_.data() + t * config_.width);
      }
    });
    const size_t tokens = static_cast<size_t>(forward_.max_tokens());
    normed_.resize(tokens * static_cast<size_t>(config_.width));
    kept_.resize(tokens * static_cast<size_t>(
                              std::max(config_.num_heads * config_.head_dim, config_.ffn_width)));
  }

  int64_t num_tokens() const { return T_; }
  int64_t count() const { return static_cast<int64_t>(x_.size()) / (T_ * config_.width); }
  const float* stream(int64_t i) const { return x_.data() + i * T_ * config_.width; }
  void reserve(int64_t streams) { x_.reserve(static_cast<size_t>(streams * T_ * config_.width)); }
  // A copy of stream i becomes the last one.
  void copy(int64_t i) {
    x_.resize(x_.size() + static_cast<size_t>(T_ * config_.width));
    std::copy_n(stream(i), T_ * config_.width, x_.end() - T_ * config_.width);
  }

  // Runs streams [first, first + number) over a layer.
  void advance(const LayerWeights& weights, int64_t layer, int64_t first, int64_t number) {
    pieces(first, number, [&](float* x, int64_t T) {
      forward_.norm(x, T, weights.attn_norm, normed_.data());
      forward_.attention(weights, layer, normed_.data(), T, kept_.data());
      forward_.add_linear(weights[Linear::o], kept_.data(), T, x);
      forward_.norm(x, T, weights.ffn_norm, normed_.data());
      forward_.gate_up(weights, normed_.data(), T, kept_.data());
      forward_.add_linear(weights[Linear::down], kept_.data(), T, x);
    });
  }

  // The first stream over a layer; visit(set, inputs [T, K], T) before each set, a piece at a time.
  template <typename Visit>
  void advance_visiting(const LayerWeights& weights, int64_t layer, Visit&& visit) {
    pieces(0, 1, [&](float* x, int64_t T) {
      forward_.norm(x, T, weights.attn_norm, normed_.data());
      visit(LinearSet::qkv, normed_.data(), T);
      forward_.attention(weights, layer, normed_.data(), T, kept_.data());
      visit(LinearSet::o, kept_.data(), T);
      forward_.add_linear(weights[Linear::o], kept_.data(), T, x);
      forward_.norm(x, T, weights.ffn_norm, normed_.data());
      visit(LinearSet::gate_up, normed_.data(), T);
      forward_.gate_up(weights, normed_.data(), T, kept_.data());
      visit(LinearSet::down, kept_.data(), T);
      forward_.add_linear(weights[Linear::down], kept_.data(), T, x);
    });
  }

  // out [T, C] = the final norm of stream i.
  void final_norm(int64_t i, const std::vector<float>& weight, float* out) {
    const int64_t C = config_.width;
    for (int64_t t = 0; t < T_; t += forward_.max_tokens()) {
      const int64_t T = std::min(forward_.max_tokens(), T_ - t);
      forward_.norm(stream(i) + t * C, T, weight, out + t * C);
    }
  }

 private:
  template <typename Run>
  void pieces(int64_t first, int64_t number, Run&& run) {
    float* x = x_.data() + first * T_ * config_.width;
    for (int64_t t = 0, all = number * T_; t < all; t += forward_.max_tokens()) {
      run(x + t * config_.width, std::min(forward_.max_tokens(), all - t));
    }
  }

  const ModelConfig& config_;
  int64_t T_;
  LayerForward forward_;
  std::vector<float> x_;  // [count, T, C]
  std::vector<float> normed_, kept_;
};

// ---- output
// ----------------------------------------------------------------------------------------

Costs output_errors(const Checkpoint& source, const CalibrationRows& rows,
                    const std::vector<IntegerGrid>& grids, ThreadPool& pool,
                    const std::function<void(double)>& progress) {
  const Multiply multiply = find_multiply(best_isa());
  const int64_t L = source.config.num_layers;
  Streams streams(source, rows, rows.num(), pool);
  Costs costs(static_cast<size_t>(L * kNumSets), std::vector<double>(grids.size()));
  for (int64_t l = 0; l < L; ++l) {
    progress(static_cast<double>(l) / static_cast<double>(L));
    const LayerWeights weights = load_layer(source, l, pool);
    std::vector<StatisticsBuilder> builders;
    for (const LinearSet set : kLinearSets) {
      builders.emplace_back(weights[linears_of(set).front()].weight.K, streams.num_tokens(),
                            rows.num(), /*with_gram=*/true, pool);
    }
    streams.advance_visiting(weights, l, [&](LinearSet set, const float* x, int64_t T) {
      builders[static_cast<size_t>(set)].add(x, T);
    });
    for (const LinearSet set : kLinearSets) {
      const InputStatistics inputs = builders[static_cast<size_t>(set)].finish();
      std::vector<double>& row =
          costs[static_cast<size_t>(l * kNumSets) + static_cast<size_t>(set)];
      for (const Linear linear : linears_of(set)) {
        const Matrix& w = weights[linear].weight;
        const double whole = output_error(w, Matrix(w.N, w.K), inputs.gram, multiply, pool);
        for (size_t f = 0; f < grids.size() && whole > 0.0; ++f) {
          row[f] +=
              output_error(w, rounded(w, grids[f], pool), inputs.gram, multiply, pool) / whole;
        }
      }
    }
  }
  return costs;
}

// ---- KL
// --------------------------------------------------------------------------------------------

// What the last stream's tokens say of the next one.
class Head {
 public:
  Head(const Checkpoint& source, ThreadPool& pool)
      : pool_(pool), multiply_(find_multiply(best_isa())) {
    const NamedTensor* head = source.find("lm_head.weight");
    head_ =
        decoded(head != nullptr ? head->weight : source.weight("model.embed_tokens.weight"), pool);
    const Matrix norm = decoded(source.weight("model.norm.weight"), pool);
    norm_ = norm.values;
  }

  // [S, V] log probabilities of every kScoredEvery-th token of stream i.
  Matrix log_probabilities(Streams& streams, int64_t i) const {
    const int64_t C = head_.K, V = head_.N, T = streams.num_tokens(), S = T / kScoredEvery;
    std::vector<float> normed(static_cast<size_t>(T * C));
    streams.final_norm(i, norm_, normed.data());
    Matrix logits(S, V);
    multiply_(pool_, {S,
                      V,
                      C,
                      {normed.data() + (kScoredEvery - 1) * C, kScoredEvery * C},
                      {head_.values.data(), 1, C},
                      logits.values.data(),
                      V});
    pool_.parallel_for(S, 4, [&](int64_t begin, int64_t end, int) {
      for (int64_t s = begin; s < end; ++s) {
        float* row = logits.row(s);
        const float largest = *std::max_element(row, row + V);
        double sum = 0.0;
        for (int64_t v = 0; v < V; ++v) sum += std::exp(static_cast<double>(row[v] - largest));
        const auto shift = static_cast<float>(largest + std::log(sum));
        for (int64_t v = 0; v < V; ++v) row[v] -= shift;
      }
    });
    return logits;
  }

 private:
  ThreadPool& pool_;
  Multiply multiply_;
  Matrix head_;              // [V, C]
  std::vector<float> norm_;  // [C]
};

double mean_kl(const Matrix& base, const Matrix& other, ThreadPool& pool) {
  std::vector<double> rows(static_cast<size_t>(base.N));
  pool.parallel_for(base.N, 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t s = begin; s < end; ++s) {
      const float *p = base.row(s), *q = other.row(s);
      double sum = 0.0;
      for (int64_t v = 0; v < base.K; ++v) {
        if (p[v] > kLeastLogProbability) sum += std::exp(static_cast<double>(p[v])) * (p[v] - q[v]);
      }
      rows[static_cast<size_t>(s)] = sum;
    }
  });
  double sum = 0.0;
  for (const double row : rows) sum += row;
  return sum / static_cast<double>(base.N);
}

Costs kl_divergences(const Checkpoint& source, const CalibrationRows& rows,
                     const std::vector<IntegerGrid>& grids, ThreadPool& pool,
                     const std::function<void(double)>& progress) {
  const int64_t L = source.config.num_layers, F = static_cast<int64_t>(grids.size());
  const int64_t num_rows = std::clamp<int64_t>(kMaxKlTokens / rows.length, 1, rows.num());
  Streams streams(source, rows, num_rows, pool);
  streams.reserve(1 + L * kNumSets * F);
  // The number of streams grows with the layers: so does the work of a layer.
  const auto share = [L](int64_t l) {
    return static_cast<double>(l * l) / static_cast<double>(L * L + 1);
  };
  for (int64_t l = 0; l < L; ++l) {
    progress(share(l));
    LayerWeights weights = load_layer(source, l, pool);
    const int64_t before = streams.count();
    for (const LinearSet set : kLinearSets) {
      for (int64_t f = 0; f < F; ++f) {
        std::vector<Matrix> originals;
        for (const Linear linear : linears_of(set)) {
          Matrix& w = weights[linear].weight;
          originals.push_back(rounded(w, grids[static_cast<size_t>(f)], pool));
          std::swap(w, originals.back());
        }
        streams.copy(0);
        streams.advance(weights, l, streams.count() - 1, 1);
        for (size_t i = 0; i < originals.size(); ++i) {
          weights[linears_of(set)[i]].weight = std::move(originals[i]);
        }
      }
    }
    streams.advance(weights, l, 0, before);
  }

  const Head head(source, pool);
  const Matrix base = head.log_probabilities(streams, 0);
  Costs costs(static_cast<size_t>(L * kNumSets), std::vector<double>(grids.size()));
  for (int64_t i = 1; i < streams.count(); ++i) {
    progress(share(L));
    costs[static_cast<size_t>((i - 1) / F)][static_cast<size_t>((i - 1) % F)] =
        mean_kl(base, head.log_probabilities(streams, i), pool);
  }
  return costs;
}

}  // namespace

Costs measure_sensitivity(const Checkpoint& source, const CalibrationRows& rows,
                          const std::vector<IntegerGrid>& grids, SensitivityMeasure measure,
                          ThreadPool& pool, const std::function<void(double)>& progress) {
  CHECK(rows.num() > 0 && !grids.empty(), "{} rows, {} grids", rows.num(), grids.size());
  return measure == SensitivityMeasure::kl ? kl_divergences(source, rows, grids, pool, progress)
                                           : output_errors(source, rows, grids, pool, progress);
}

}  // namespace tandem
