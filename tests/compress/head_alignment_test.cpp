// Heads turned under RoPE: attention stays as it was, copies in disguise are found and merged
// without loss, and what is not alike is said to be so.
#include "compress/head_alignment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "compress/head_grouping.h"

namespace tandem {
namespace {

constexpr int64_t kWidth = 48, kHeadDim = 8, kTokens = 12;

Matrix random_matrix(int64_t N, int64_t K, Random* random) {
  Matrix m(N, K);
  for (float& w : m.values) w = static_cast<float>(random->normal());
  return m;
}

std::vector<float> random_vector(int64_t N, Random* random) {
  return random_matrix(N, 1, random).values;
}

AttentionHeads random_heads(int64_t H, int64_t G, Random* random) {
  AttentionHeads heads;
  heads.num_heads = H;
  heads.num_kv_heads = G;
  heads.head_dim = kHeadDim;
  heads.q = random_matrix(H * kHeadDim, kWidth, random);
  heads.k = random_matrix(G * kHeadDim, kWidth, random);
  heads.v = random_matrix(G * kHeadDim, kWidth, random);
  heads.o = random_matrix(kWidth, H * kHeadDim, random);
  heads.q_bias = random_vector(H * kHeadDim, random);
  heads.k_bias = random_vector(G * kHeadDim, random);
  heads.v_bias = random_vector(G * kHeadDim, random);
  return heads;
}

// Rows of x^T, in double: y[T, N] = x[T, K] w^T + bias.
std::vector<double> linear(const Matrix& x, const Matrix& w, const std::vector<float>& bias) {
  std::vector<double> y;
  for (int64_t t = 0; t < x.N; ++t) {
    for (int64_t n = 0; n < w.N; ++n) {
      double sum = bias.empty() ? 0 : bias[static_cast<size_t>(n)];
      for (int64_t k = 0; k < w.K; ++k) sum += double{x.row(t)[k]} * w.row(n)[k];
      y.push_back(sum);
    }
  }
  return y;
}

// Half-split RoPE of each head at the position of its row.
void rope(std::vector<double>* y, int64_t heads) {
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      double* head = y->data() + (t * heads + h) * kHeadDim;
      for (int64_t p = 0; p < kHeadDim / 2; ++p) {
        const double angle = static_cast<double>(t) * std::pow(100.0, -2.0 * p / kHeadDim);
        const double a = head[p], b = head[p + kHeadDim / 2];
        head[p] = a * std::cos(angle) - b * std::sin(angle);
        head[p + kHeadDim / 2] = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
}

// [T, C]: causal attention with RoPE and o, in double.
std::vector<double> attention(const AttentionHeads& heads, const Matrix& x) {
  const int64_t H = heads.num_heads, G = heads.num_kv_heads, D = kHeadDim;
  auto q = linear(x, heads.q, heads.q_bias), k = linear(x, heads.k, heads.k_bias);
  const auto v = linear(x, heads.v, heads.v_bias);
  rope(&q, H);
  rope(&k, G);
  std::vector<double> out(static_cast<size_t>(kTokens * heads.o.N));
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t h = 0; h < H; ++h) {
      const int64_t g = h / heads.queries_per_kv_head();
      std::vector<double> weights, mixed(static_cast<size_t>(D));
      double sum = 0;
      for (int64_t s = 0; s <= t; ++s) {
        double dot = 0;
        for (int64_t d = 0; d < D; ++d) {
          dot += q[static_cast<size_t>((t * H + h) * D + d)] *
                 k[static_cast<size_t>((s * G + g) * D + d)];
        }
        weights.push_back(std::exp(dot / 400));
        sum += weights.back();
      }
      for (int64_t s = 0; s <= t; ++s) {
        for (int64_t d = 0; d < D; ++d) {
          mixed[static_cast<size_t>(d)] += weights[static_cast<size_t>(s)] / sum *
                                           v[static_cast<size_t>((s * G + g) * D + d)];
        }
      }
      for (int64_t n = 0; n < heads.o.N; ++n) {
        for (int64_t d = 0; d < D; ++d) {
          out[static_cast<size_t>(t * heads.o.N + n)] +=
              mixed[static_cast<size_t>(d)] * heads.o.row(n)[h * D + d];
        }
      }
    }
  }
  return out;
}

double relative_error(const std::vector<double>& a, const std::vector<double>& b) {
  double error = 0, power = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error += (a[i] - b[i]) * (a[i] - b[i]);
    power += b[i] * b[i];
  }
  return std::sqrt(error / power);
}

HeadRotations random_rotations(int64_t G, Random* random) {
  // The turns that would align heads that have nothing in common.
  Random seeds(random->next());
  const AttentionHeads heads = random_heads(G, G, &seeds);
  return align_heads(covariance_of_heads(heads, nullptr), 1);
}

// `copies` KV heads for each of G, in disguise: turned with their query heads, and out of order.
AttentionHeads disguised(int64_t G, int64_t copies, double noise, Random* random) {
  const AttentionHeads base = random_heads(G * copies, G, random);
  AttentionHeads heads = base;
  heads.num_kv_heads = G * copies;
  heads.k = Matrix(heads.num_kv_heads * kHeadDim, kWidth);
  heads.v = heads.k;
  heads.k_bias.clear();
  heads.v_bias.clear();
  for (int64_t j = 0; j < heads.num_kv_heads; ++j) {
    for (int64_t d = 0; d < kHeadDim; ++d) {
      const int64_t from = j / copies * kHeadDim + d;
      std::copy_n(base.k.row(from), kWidth, heads.k.row(j * kHeadDim + d));
      std::copy_n(base.v.row(from), kWidth, heads.v.row(j * kHeadDim + d));
      heads.k_bias.push_back(base.k_bias[static_cast<size_t>(from)]);
      heads.v_bias.push_back(base.v_bias[static_cast<size_t>(from)]);
    }
  }
  for (Matrix* m : {&heads.k, &heads.v}) {
    for (float& w : m->values) w += static_cast<float>(noise * random->normal());
  }
  rotate_heads(&heads, random_rotations(heads.num_kv_heads, random));
  std::vector<int64_t> order(static_cast<size_t>(heads.num_kv_heads));
  for (size_t j = 0; j < order.size(); ++j) order[j] = static_cast<int64_t>(j);
  for (size_t j = order.size() - 1; j > 0; --j) std::swap(order[j], order[random->below(j + 1)]);
  reorder_heads(&heads, order);
  return heads;
}

InputStatistics statistics_of(const Matrix& x) {
  InputStatistics s;
  s.K = x.K;
  s.num_tokens = x.N;
  s.gram.resize(static_cast<size_t>(x.K * x.K));
  for (int64_t t = 0; t < x.N; ++t) {
    for (int64_t a = 0; a < x.K; ++a) {
      for (int64_t b = 0; b < x.K; ++b) s.gram_row(a)[b] += x.row(t)[a] * x.row(t)[b];
    }
  }
  return s;
}

// What gqa-aligned does to a layer.
double merge(AttentionHeads* heads, int64_t groups, const InputStatistics* inputs) {
  const HeadCovariance before = covariance_of_heads(*heads, inputs);
  reorder_heads(heads, group_heads(head_similarity(before), heads->num_kv_heads, groups, 1));
  const HeadCovariance covariance = covariance_of_heads(*heads, inputs);
  const HeadRotations rotations = align_heads(covariance, groups);
  rotate_heads(heads, rotations);
  pool_heads(heads, groups);
  return kept_power(covariance, rotations, groups);
}

TEST(HeadAlignment, TurnsAndOrderLeaveAttentionAsItIs) {
  Random random(1);
  const Matrix x = random_matrix(kTokens, kWidth, &random);
  for (const int64_t G : {6, 3}) {
    AttentionHeads heads = random_heads(6, G, &random);
    const auto before = attention(heads, x);
    rotate_heads(&heads, random_rotations(G, &random));
    EXPECT_LT(relative_error(attention(heads, x), before), 1e-5);
    std::vector<int64_t> order = {2, 0, 1, 5, 3, 4};
    order.resize(static_cast<size_t>(G));
    reorder_heads(&heads, order);
    EXPECT_LT(relative_error(attention(heads, x), before), 1e-5);
  }
}

TEST(HeadAlignment, RotationsAreOrthogonal) {
  Random random(2);
  const HeadRotations r = random_rotations(3, &random);
  for (int64_t head = 0; head < 3; ++head) {
    const double* Q = r.orthogonal.data() + head * kHeadDim * kHeadDim;
    for (int64_t a = 0; a < kHeadDim; ++a) {
      for (int64_t b = 0; b < kHeadDim; ++b) {
        double dot = 0;
        for (int64_t i = 0; i < kHeadDim; ++i) dot += Q[i * kHeadDim + a] * Q[i * kHeadDim + b];
        EXPECT_NEAR(dot, a == b, 1e-12);
      }
    }
  }
}

TEST(HeadAlignment, FindsAndMergesCopiesInDisguise) {
  for (const bool calibrated : {false, true}) {
    Random random(3);
    const Matrix x = random_matrix(kTokens, kWidth, &random);
    const InputStatistics inputs = statistics_of(random_matrix(200, kWidth, &random));
    AttentionHeads heads = disguised(3, 3, 0.0, &random);
    const auto before = attention(heads, x);
    AttentionHeads pooled = heads;
    pool_heads(&pooled, 3);
    EXPECT_GT(relative_error(attention(pooled, x), before), 0.3);
    EXPECT_NEAR(merge(&heads, 3, calibrated ? &inputs : nullptr), 1.0, 1e-6);
    EXPECT_EQ(heads.num_kv_heads, 3);
    EXPECT_LT(relative_error(attention(heads, x), before), 1e-5);
  }
}

// The groups survive noise a fifth of the weights' size; the power that is kept tells the loss.
TEST(HeadAlignment, FindsCopiesUnderNoise) {
  Random random(4);
  AttentionHeads heads = disguised(3, 3, 0.2, &random);
  const HeadCovariance covariance = covariance_of_heads(heads, nullptr);
  const auto similarity = head_similarity(covariance);
  const auto order = group_heads(similarity, 9, 3, 1);
  for (size_t place = 0; place < 9; ++place) {
    for (size_t other = 0; other < 9; ++other) {
      if (place == other) continue;
      const double s = similarity[static_cast<size_t>(order[place] * 9 + order[other])];
      EXPECT_EQ(s > 0.9, place / 3 == other / 3) << s;
    }
  }
  const double kept = merge(&heads, 3, nullptr);
  EXPECT_LT(kept, 0.99);
  EXPECT_GT(kept, 0.95);
}

TEST(HeadAlignment, UnlikeHeadsLosePower) {
  Random random(5);
  AttentionHeads heads = random_heads(4, 4, &random);
  const double kept = merge(&heads, 1, nullptr);
  EXPECT_GT(kept, 0.3);
  EXPECT_LT(kept, 0.8);
}

TEST(HeadGrouping, FindsTheBestPartition) {
  // Heads of one parity are alike.
  std::vector<double> similarity(64);
  for (size_t i = 0; i < 8; ++i) {
    for (size_t j = 0; j < 8; ++j) similarity[i * 8 + j] = i % 2 == j % 2 ? 1.0 : 0.1;
  }
  EXPECT_EQ(group_heads(similarity, 8, 2, 1), (std::vector<int64_t>{0, 2, 4, 6, 1, 3, 5, 7}));
  EXPECT_EQ(group_heads(similarity, 8, 1, 1), (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(group_heads(similarity, 8, 8, 1), (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
}

// Against all 280 partitions of nine heads.
TEST(HeadGrouping, IsNeverBelowAnyPartition) {
  Random random(6);
  for (int trial = 0; trial < 5; ++trial) {
    std::vector<double> similarity(81, 1.0);
    for (size_t i = 0; i < 9; ++i) {
      for (size_t j = 0; j < i; ++j) {
        similarity[i * 9 + j] = similarity[j * 9 + i] = random.uniform();
      }
    }
    const double found = grouping_score(similarity, group_heads(similarity, 9, 3, 1), 3);
    std::vector<int64_t> labels = {0, 0, 0, 1, 1, 1, 2, 2, 2};
    double best = 0;
    do {
      std::vector<int64_t> order;
      for (int64_t group = 0; group < 3; ++group) {
        for (int64_t j = 0; j < 9; ++j) {
          if (labels[static_cast<size_t>(j)] == group) order.push_back(j);
        }
      }
      best = std::max(best, grouping_score(similarity, order, 3));
    } while (std::next_permutation(labels.begin(), labels.end()));
    EXPECT_NEAR(found, best, 1e-12);
  }
}

}  // namespace
}  // namespace tandem
