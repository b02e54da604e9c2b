#include "compress/weight_error.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace tandem {
namespace {

constexpr int64_t kRowsPerTask = 16;

// What the matrix of this name reads: "" or the name of a norm, and of the matrix whose rows are
// its columns.
struct Neighbours {
  std::string norm, writer;
};

Neighbours neighbours_of(const std::string& name) {
  const auto renamed = [&](std::string_view part, const char* other) {
    return name.substr(0, name.size() - part.size()) + other;
  };
  for (const char* part : {"self_attn.q_proj.weight", "self_attn.k_proj.weight",
                           "self_attn.v_proj.weight"}) {
    if (name.ends_with(part)) return {renamed(part, "input_layernorm.weight"), ""};
  }
  for (const char* part : {"mlp.gate_proj.weight", "mlp.up_proj.weight"}) {
    if (name.ends_with(part)) return {renamed(part, "post_attention_layernorm.weight"), ""};
  }
  if (name.ends_with("o_proj.weight")) return {"", renamed("o_proj.weight", "v_proj.weight")};
  if (name.ends_with("down_proj.weight")) {
    return {"", renamed("down_proj.weight", "up_proj.weight")};
  }
  return {};
}

std::vector<float> vector_of(const Checkpoint& checkpoint, const std::string& name, int64_t K) {
  std::vector<float> values(static_cast<size_t>(K), 1.0f);
  const NamedTensor* tensor = name.empty() ? nullptr : checkpoint.find(name);
  if (tensor != nullptr && tensor->weight.N * tensor->weight.K == K) {
    decode_row(tensor->weight, 0, values.data());
  }
  return values;
}

class Comparison {
 public:
  Comparison(const Checkpoint& source, const Checkpoint& result, ThreadPool& pool)
      : source_(source), result_(result), pool_(pool) {}

  double relative_error(const std::string& name, const Weight& a, const Weight& b) {
    const Sums sums = compare(name, a, b);
    double difference = 0, size = 0;
    for (size_t n = 0; n < sums.size.size(); ++n) {
      difference += sums.difference[n];
      size += sums.size[n];
    }
    return size > 0 ? std::sqrt(difference / size) : difference > 0 ? INFINITY : 0;
  }

 private:
  // For each row n: of (r[n] W'[n, k] c'[k] - W[n, k] c[k])^2, (W c)^2 and (W c)(W' c').
  struct Sums {
    std::vector<double> difference, size, product;
  };

  Sums compare(const std::string& name, const Weight& a, const Weight& b) {
    const Neighbours neighbours = neighbours_of(name);
    const std::vector<float> before = vector_of(source_, neighbours.norm, a.K);
    std::vector<float> after = vector_of(result_, neighbours.norm, a.K);
    if (!neighbours.writer.empty()) undo_writer(name, neighbours.writer, &after);
    Sums sums = row_sums(a, b, before, after, {});
    const bool is_writer = name.ends_with("v_proj.weight") || name.ends_with("up_proj.weight");
    if (!is_writer) return sums;
    std::vector<double>& factors = row_factors_[name] = fitted_factors(sums);
    if (!factors.empty()) sums = row_sums(a, b, before, after, factors);
    return sums;
  }

  // Columns of o and down take back what the rows of v and up were scaled by.
  void undo_writer(const std::string& name, const std::string& writer, std::vector<float>* after) {
    if (!row_factors_.contains(writer)) {
      const NamedTensor *a = source_.find(writer), *b = result_.find(writer);
      if (a == nullptr || b == nullptr || a->weight.N != b->weight.N ||
          a->weight.K != b->weight.K) {
        return;
      }
      compare(writer, source_.weight(writer, pool_), result_.weight(writer, pool_));
    }
    const std::vector<double>& factors = row_factors_[writer];
    if (factors.empty()) return;
    const ModelConfig& c = source_.config;
    const bool is_heads = name.ends_with("o_proj.weight");
    const int64_t heads_per_group = is_heads ? c.num_heads / c.num_kv_heads : 1;
    for (size_t k = 0; k < after->size(); ++k) {
      const auto channel = static_cast<int64_t>(k);
      const int64_t row = is_heads ? channel / c.head_dim / heads_per_group * c.head_dim +
                                         channel % c.head_dim
                                   : channel;
      (*after)[k] *= static_cast<float>(factors[static_cast<size_t>(row)]);
    }
  }

  // The least-squares factor of each row; empty: the rows were not scaled.
  static std::vector<double> fitted_factors(const Sums& sums) {
    std::vector<double> factors;
    double sum = 0, squares = 0;
    for (size_t n = 0; n < sums.size.size(); ++n) {
      const bool has_factor = sums.size[n] > 0 && sums.product[n] > 0;
      factors.push_back(has_factor ? sums.product[n] / sums.size[n] : 1.0);
      const double logarithm = std::log(factors.back());
      sum += logarithm;
      squares += logarithm * logarithm;
    }
    const auto count = static_cast<double>(factors.size());
    const double variance = squares / count - (sum / count) * (sum / count);
    if (!(variance > kScaledRows * kScaledRows)) factors.clear();
    return factors;
  }

  Sums row_sums(const Weight& a, const Weight& b, const std::vector<float>& before,
                const std::vector<float>& after, const std::vector<double>& factors) {
    const auto rows = static_cast<size_t>(a.N);
    Sums sums{std::vector<double>(rows), std::vector<double>(rows), std::vector<double>(rows)};
    pool_.parallel_for(a.N, kRowsPerTask, [&](int64_t begin, int64_t end, int) {
      std::vector<float> x(static_cast<size_t>(a.K)), y(static_cast<size_t>(a.K));
      for (int64_t n = begin; n < end; ++n) {
        decode_row(a, n, x.data());
        decode_row(b, n, y.data());
        const auto row = static_cast<size_t>(n);
        const double factor = factors.empty() ? 1.0 : 1.0 / factors[row];
        double difference = 0, size = 0, product = 0;
        for (size_t k = 0; k < x.size(); ++k) {
          const double u = static_cast<double>(x[k]) * static_cast<double>(before[k]);
          const double v = static_cast<double>(y[k]) * static_cast<double>(after[k]) * factor;
          difference += (v - u) * (v - u);
          size += u * u;
          product += u * v;
        }
        sums.difference[row] = difference;
        sums.size[row] = size;
        sums.product[row] = product;
      }
    });
    return sums;
  }

  const Checkpoint& source_;
  const Checkpoint& result_;
  ThreadPool& pool_;
  std::map<std::string, std::vector<double>> row_factors_;  // of v and up
};

}  // namespace

std::vector<MatrixError> matrix_errors(const Checkpoint& source, const Checkpoint& result,
                                       ThreadPool& pool) {
  Comparison comparison(source, result, pool);
  std::vector<MatrixError> errors;
  for (const auto& [name, weight] : result.tensors) {
    const NamedTensor* original = source.find(name);
    if (weight.N == 1 || original == nullptr || original->weight.N != weight.N ||
        original->weight.K != weight.K) {
      continue;
    }
    // Through weight(), which makes the planes of repacked ones.
    errors.push_back({name, comparison.relative_error(name, source.weight(name, pool),
                                                      result.weight(name, pool))});
  }
  return errors;
}

std::vector<MatrixError> worst_errors(std::vector<MatrixError> errors, size_t count) {
  std::ranges::stable_sort(errors, [](const MatrixError& a, const MatrixError& b) {
    return a.relative_error > b.relative_error;
  });
  errors.resize(std::min(errors.size(), count));
  return errors;
}

}  // namespace tandem
