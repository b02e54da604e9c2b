#include "compress/attention_refit.h"

#include <Eigen/Dense>
#include <algorithm>
#include <utility>

#include "base/error.h"
#include "kernels/multiply.h"
#include "kernels/table.h"

namespace tandem {
namespace {

constexpr int64_t kTokensAtATime = 4096;
constexpr double kDamping = 0.01;

using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

RowMajor widen(const float* values, int64_t N, int64_t K) {
  using Floats = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  return Eigen::Map<const Floats>(values, N, K).cast<double>();
}

int64_t piece_sequences(const CalibrationRows& rows) {
  return std::max<int64_t>(1, kTokensAtATime / rows.length);
}

}  // namespace

Matrix refit_output(const Matrix& old_o, const Matrix& new_o, const std::vector<float>& gram,
                    const std::vector<float>& cross, double damping) {
  const int64_t N = new_o.N, K = new_o.K;
  CHECK(old_o.N == N && old_o.K == K && static_cast<int64_t>(gram.size()) == K * K &&
            cross.size() == gram.size(),
        "[{}, {}] and [{}, {}]", old_o.N, old_o.K, N, K);
  RowMajor H = widen(gram.data(), K, K);
  const RowMajor start = widen(new_o.values.data(), N, K);
  const RowMajor missing =
      widen(old_o.values.data(), N, K) * widen(cross.data(), K, K) - start * H;
  const double mean = H.diagonal().mean();
  H.diagonal().array() += mean > 0 ? damping * mean : 1.0;
  const RowMajor change = H.llt().solve(missing.transpose()).transpose();
  Matrix out(N, K);
  const RowMajor sum = start + change;
  std::transform(sum.data(), sum.data() + sum.size(), out.values.begin(),
                 [](double w) { return static_cast<float>(w); });
  return out;
}

AttentionRefit::AttentionRefit(const Checkpoint& source, const ModelConfig& changed,
                               const CalibrationRows& rows, ThreadPool& pool)
    : config_(source.config),
      pool_(pool),
      num_tokens_(rows.num() * rows.length),
      num_sequences_(rows.num()),
      old_forward_(source.config, rows.length, piece_sequences(rows), pool),
      new_forward_(changed, rows.length, piece_sequences(rows), pool),
      x_(static_cast<size_t>(num_tokens_ * config_.width)) {
  const Weight& embedding = source.weight("model.embed_tokens.weight");
  pool.parallel_for(num_tokens_, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      decode_row(embedding, rows.ids[static_cast<size_t>(t)], x_.data() + t * config_.width);
    }
  });
}

// f(x, T) of pieces of whole sequences.
template <typename F>
void AttentionRefit::for_pieces(F&& f) {
  for (int64_t t = 0; t < num_tokens_; t += old_forward_.max_tokens()) {
    f(x_.data() + t * config_.width, std::min(old_forward_.max_tokens(), num_tokens_ - t));
  }
}

InputStatistics AttentionRefit::begin_layer(const LayerWeights& before, int64_t layer) {
  before_ = &before;
  layer_ = layer;
  StatisticsBuilder builder(config_.width, num_tokens_, num_sequences_, /*with_gram=*/true, pool_);
  std::vector<float> h(static_cast<size_t>(old_forward_.max_tokens() * config_.width));
  for_pieces([&](const float* x, int64_t T) {
    old_forward_.norm(x, T, before.attn_norm, h.data());
    builder.add(h.data(), T);
  });
  return builder.finish();
}

Matrix AttentionRefit::finish_layer(LayerWeights after) {
  const int64_t C = config_.width, K = config_.num_heads * config_.head_dim;
  const Multiply multiply = find_multiply(best_isa());
  const auto most = static_cast<size_t>(old_forward_.max_tokens());
  std::vector<float> h(most * static_cast<size_t>(C)), a(most * static_cast<size_t>(K)), b = a,
      activated(most * static_cast<size_t>(config_.ffn_width));
  std::vector<float> gram(static_cast<size_t>(K * K)), cross = gram;
  for_pieces([&](const float* x, int64_t T) {
    old_forward_.norm(x, T, before_->attn_norm, h.data());
    old_forward_.attention(*before_, layer_, h.data(), T, a.data());
    new_forward_.attention(after, layer_, h.data(), T, b.data());
    const MatrixView view_a{a.data(), K}, view_b{b.data(), K};
    multiply(pool_, {K, K, T, view_b.transposed(), view_b, gram.data(), K});
    multiply(pool_, {K, K, T, view_a.transposed(), view_b, cross.data(), K});
  });
  LinearWork& o = after[Linear::o];
  o.weight = refit_output((*before_)[Linear::o].weight, o.weight, gram, cross, kDamping);
  for_pieces([&](float* x, int64_t T) {
    new_forward_.norm(x, T, after.attn_norm, h.data());
    new_forward_.attention(after, layer_, h.data(), T, b.data());
    new_forward_.add_linear(o, b.data(), T, x);
    new_forward_.norm(x, T, after.ffn_norm, h.data());
    new_forward_.gate_up(after, h.data(), T, activated.data());
    new_forward_.add_linear(after[Linear::down], activated.data(), T, x);
  });
  return std::move(o.weight);
}

}  // namespace tandem
