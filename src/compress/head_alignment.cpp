#include "compress/head_alignment.h"

#include <Eigen/Dense>
#include <cmath>

#include "base/error.h"

namespace tandem {
namespace {

using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using FloatMap =
    Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
using Complex = std::complex<double>;

constexpr int kMaxIterations = 100;
constexpr double kLeastGain = 1e-12;  // of the power, an iteration

RowMajor widen(const Matrix& m) { return FloatMap(m.values.data(), m.N, m.K).cast<double>(); }

// w times the Gram matrix, whose square root would turn inner products of rows into those of
// outputs.
RowMajor times_gram(const RowMajor& w, const InputStatistics* inputs) {
  if (inputs == nullptr) return w;
  return w * FloatMap(inputs->gram.data(), inputs->K, inputs->K).cast<double>();
}

double bias_weight(const InputStatistics* inputs) {
  return inputs == nullptr ? 1.0 : static_cast<double>(inputs->num_tokens);
}

auto block_of(const HeadCovariance& covariance, int64_t i, int64_t j) {
  const int64_t D = covariance.head_dim, size = covariance.num_heads * D;
  return Eigen::Map<const RowMajor>(covariance.values.data(), size, size)
      .block(i * D, j * D, D, D);
}

Complex plane_of(const HeadCovariance& covariance, int64_t i, int64_t j, int64_t p) {
  const int64_t G = covariance.num_heads, planes = covariance.head_dim / 2;
  return covariance.keys[static_cast<size_t>((i * G + j) * planes + p)];
}

double key_power(const HeadCovariance& covariance, int64_t i) {
  double sum = 0;
  for (int64_t p = 0; p < covariance.head_dim / 2; ++p) sum += plane_of(covariance, i, i, p).real();
  return sum;
}

// The orthogonal matrix Q that makes tr(Q^T m) largest.
RowMajor nearest_orthogonal(const RowMajor& m) {
  const Eigen::BDCSVD<RowMajor> svd(m, Eigen::ComputeFullU | Eigen::ComputeFullV);
  return svd.matrixU() * svd.matrixV().transpose();
}

// The turns of heads first ... first + count - 1, from the first of them.
struct GroupTurns {
  const HeadCovariance& covariance;
  int64_t first, count;
  std::vector<RowMajor> Q;
  std::vector<std::vector<Complex>> phases;

  GroupTurns(const HeadCovariance& covariance_, int64_t first_, int64_t count_)
      : covariance(covariance_), first(first_), count(count_) {
    const int64_t D = covariance.head_dim;
    Q.assign(static_cast<size_t>(count), RowMajor::Identity(D, D));
    phases.assign(static_cast<size_t>(count),
                  std::vector<Complex>(static_cast<size_t>(D / 2), 1.0));
  }

  // The sum over the members from `begin` to `end` of what head i shares with each, these turned.
  RowMajor towards_values(int64_t i, int64_t begin, int64_t end) const {
    RowMajor sum = RowMajor::Zero(covariance.head_dim, covariance.head_dim);
    for (int64_t j = begin; j < end; ++j) {
      sum += block_of(covariance, first + i, first + j) * Q[static_cast<size_t>(j)];
    }
    return sum;
  }
  Complex towards_keys(int64_t i, int64_t p, int64_t begin, int64_t end) const {
    Complex sum = 0;
    for (int64_t j = begin; j < end; ++j) {
      sum += plane_of(covariance, first + i, first + j, p) *
             phases[static_cast<size_t>(j)][static_cast<size_t>(p)];
    }
    return sum;
  }

  void turn(int64_t i, int64_t begin, int64_t end) {
    Q[static_cast<size_t>(i)] = nearest_orthogonal(towards_values(i, begin, end));
    for (int64_t p = 0; p < covariance.head_dim / 2; ++p) {
      const Complex sum = towards_keys(i, p, begin, end);
      const double size = std::abs(sum);
      if (size > 0) phases[static_cast<size_t>(i)][static_cast<size_t>(p)] = sum / size;
    }
  }

  // count^2 times the power of the mean: of values and of keys.
  std::pair<double, double> mean_power() const {
    double values = 0, keys = 0;
    for (int64_t i = 0; i < count; ++i) {
      values += (Q[static_cast<size_t>(i)].array() * towards_values(i, 0, count).array()).sum();
      for (int64_t p = 0; p < covariance.head_dim / 2; ++p) {
        const Complex phase = phases[static_cast<size_t>(i)][static_cast<size_t>(p)];
        keys += (std::conj(phase) * towards_keys(i, p, 0, count)).real();
      }
    }
    return {values, keys};
  }

  void iterate() {
    for (int64_t i = 1; i < count; ++i) turn(i, 0, 1);
    auto [values, keys] = mean_power();
    for (int iteration = 0; iteration < kMaxIterations; ++iteration) {
      for (int64_t i = 0; i < count; ++i) turn(i, 0, count);
      const auto [next_values, next_keys] = mean_power();
      const bool settled = next_values - values <= kLeastGain * std::fabs(next_values) &&
                           next_keys - keys <= kLeastGain * std::fabs(next_keys);
      values = next_values;
      keys = next_keys;
      if (settled) return;
    }
  }
};

}  // namespace

HeadCovariance covariance_of_heads(const AttentionHeads& heads, const InputStatistics* inputs) {
  const int64_t G = heads.num_kv_heads, D = heads.head_dim;
  CHECK(heads.k.N == G * D && heads.v.N == G * D, "k {} v {} rows", heads.k.N, heads.v.N);
  CHECK(inputs == nullptr || (inputs->K == heads.k.K && !inputs->gram.empty()), "K {} of {}",
        inputs->K, heads.k.K);
  HeadCovariance out;
  out.num_heads = G;
  out.head_dim = D;
  const RowMajor v = widen(heads.v);
  RowMajor values = times_gram(v, inputs) * v.transpose();
  if (!heads.v_bias.empty()) {
    const Eigen::VectorXd b =
        Eigen::Map<const Eigen::VectorXf>(heads.v_bias.data(), G * D).cast<double>();
    values += bias_weight(inputs) * b * b.transpose();
  }
  out.values.assign(values.data(), values.data() + values.size());

  const RowMajor k = widen(heads.k), k_gram = times_gram(k, inputs);
  const auto product = [&](int64_t a, int64_t b) {
    double sum = k_gram.row(a).dot(k.row(b));
    if (!heads.k_bias.empty()) {
      sum += bias_weight(inputs) * heads.k_bias[static_cast<size_t>(a)] *
             heads.k_bias[static_cast<size_t>(b)];
    }
    return sum;
  };
  out.keys.resize(static_cast<size_t>(G * G * (D / 2)));
  for (int64_t i = 0, at = 0; i < G; ++i) {
    for (int64_t j = 0; j < G; ++j) {
      for (int64_t p = 0; p < D / 2; ++p, ++at) {
        const int64_t ia = i * D + p, ib = ia + D / 2, ja = j * D + p, jb = ja + D / 2;
        out.keys[static_cast<size_t>(at)] = {product(ia, ja) + product(ib, jb),
                                             product(ib, ja) - product(ia, jb)};
      }
    }
  }
  return out;
}

std::vector<double> head_similarity(const HeadCovariance& covariance) {
  const int64_t G = covariance.num_heads;
  std::vector<double> out(static_cast<size_t>(G * G), 1.0);
  for (int64_t i = 0; i < G; ++i) {
    for (int64_t j = i + 1; j < G; ++j) {
      const RowMajor shared = block_of(covariance, i, j);
      const double v_power = std::sqrt(block_of(covariance, i, i).trace() *
                                       block_of(covariance, j, j).trace());
      const double k_power = std::sqrt(key_power(covariance, i) * key_power(covariance, j));
      double planes = 0;
      for (int64_t p = 0; p < covariance.head_dim / 2; ++p) {
        planes += std::abs(plane_of(covariance, i, j, p));
      }
      const double v_cosine =
          v_power > 0 ? Eigen::BDCSVD<RowMajor>(shared).singularValues().sum() / v_power : 0;
      const double k_cosine = k_power > 0 ? planes / k_power : 0;
      const double mean = (v_cosine + k_cosine) / 2;
      out[static_cast<size_t>(i * G + j)] = out[static_cast<size_t>(j * G + i)] = mean;
    }
  }
  return out;
}

HeadRotations align_heads(const HeadCovariance& covariance, int64_t num_groups) {
  const int64_t G = covariance.num_heads, D = covariance.head_dim;
  CHECK(num_groups > 0 && G % num_groups == 0, "{} heads, {} groups", G, num_groups);
  HeadRotations out;
  for (int64_t g = 0; g < num_groups; ++g) {
    GroupTurns turns(covariance, g * (G / num_groups), G / num_groups);
    turns.iterate();
    for (const RowMajor& q : turns.Q) {
      out.orthogonal.insert(out.orthogonal.end(), q.data(), q.data() + D * D);
    }
    for (const auto& head : turns.phases) {
      for (const Complex& phase : head) out.angles.push_back(std::arg(phase));
    }
  }
  return out;
}

double kept_power(const HeadCovariance& covariance, const HeadRotations& rotations,
                  int64_t num_groups) {
  const int64_t G = covariance.num_heads, D = covariance.head_dim, size = G / num_groups;
  double kept_values = 0, kept_keys = 0, all_values = 0, all_keys = 0;
  for (int64_t g = 0; g < num_groups; ++g) {
    GroupTurns turns(covariance, g * size, size);
    for (int64_t i = 0; i < size; ++i) {
      const int64_t head = g * size + i;
      turns.Q[static_cast<size_t>(i)] =
          Eigen::Map<const RowMajor>(rotations.orthogonal.data() + head * D * D, D, D);
      for (int64_t p = 0; p < D / 2; ++p) {
        turns.phases[static_cast<size_t>(i)][static_cast<size_t>(p)] =
            std::polar(1.0, rotations.angles[static_cast<size_t>(head * (D / 2) + p)]);
      }
      all_values += block_of(covariance, head, head).trace();
      all_keys += key_power(covariance, head);
    }
    const auto [values, keys] = turns.mean_power();
    kept_values += values / static_cast<double>(size);
    kept_keys += keys / static_cast<double>(size);
  }
  const double values = all_values > 0 ? kept_values / all_values : 1;
  const double keys = all_keys > 0 ? kept_keys / all_keys : 1;
  return (values + keys) / 2;
}

}  // namespace tandem
