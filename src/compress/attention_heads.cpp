#include "compress/attention_heads.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace tandem {
namespace {

// Blocks of `block` rows in the order given.
void reorder_rows(Matrix* m, const std::vector<int64_t>& order, int64_t block) {
  const Matrix before = *m;
  for (size_t j = 0; j < order.size(); ++j) {
    std::copy_n(before.row(order[j] * block), block * m->K,
                m->row(static_cast<int64_t>(j) * block));
  }
}

void reorder_columns(Matrix* m, const std::vector<int64_t>& order, int64_t block) {
  std::vector<float> before(static_cast<size_t>(m->K));
  for (int64_t n = 0; n < m->N; ++n) {
    std::copy_n(m->row(n), m->K, before.begin());
    for (size_t j = 0; j < order.size(); ++j) {
      std::copy_n(before.begin() + order[j] * block, block,
                  m->row(n) + static_cast<int64_t>(j) * block);
    }
  }
}

// A bias is a matrix of one column.
template <typename F>
void edit_bias(std::vector<float>* bias, F&& edit) {
  if (bias->empty()) return;
  Matrix column(static_cast<int64_t>(bias->size()), 1);
  column.values.swap(*bias);
  edit(&column);
  bias->swap(column.values);
}

// Rows p and p + D/2 of head j, turned by minus the angle of its plane.
void rotate_planes(Matrix* m, int64_t head, const double* angles, int64_t D) {
  for (int64_t p = 0; p < D / 2; ++p) {
    const double c = std::cos(angles[p]), s = std::sin(angles[p]);
    float* x = m->row(head * D + p);
    float* y = m->row(head * D + p + D / 2);
    for (int64_t i = 0; i < m->K; ++i) {
      const double a = x[i], b = y[i];
      x[i] = static_cast<float>(c * a + s * b);
      y[i] = static_cast<float>(c * b - s * a);
    }
  }
}

// Head j's rows <- Q^T rows.
void rotate_value_rows(Matrix* m, int64_t head, const double* Q, int64_t D) {
  std::vector<double> turned(static_cast<size_t>(D * m->K));
  for (int64_t from = 0; from < D; ++from) {
    const float* row = m->row(head * D + from);
    for (int64_t to = 0; to < D; ++to) {
      const double factor = Q[from * D + to];
      double* out = turned.data() + to * m->K;
      for (int64_t i = 0; i < m->K; ++i) out[i] += factor * row[i];
    }
  }
  std::transform(turned.begin(), turned.end(), m->row(head * D),
                 [](double x) { return static_cast<float>(x); });
}

// Columns of query head j of o <- columns Q.
void rotate_output_columns(Matrix* o, int64_t head, const double* Q, int64_t D) {
  std::vector<double> turned(static_cast<size_t>(D));
  for (int64_t n = 0; n < o->N; ++n) {
    float* row = o->row(n) + head * D;
    std::fill(turned.begin(), turned.end(), 0.0);
    for (int64_t from = 0; from < D; ++from) {
      for (int64_t to = 0; to < D; ++to) {
        turned[static_cast<size_t>(to)] += row[from] * Q[from * D + to];
      }
    }
    for (int64_t d = 0; d < D; ++d) row[d] = static_cast<float>(turned[static_cast<size_t>(d)]);
  }
}

void pool_rows(Matrix* m, int64_t D, int64_t group) {
  const Matrix before = *m;
  *m = Matrix(before.N / group, before.K);
  for (int64_t n = 0; n < m->N; ++n) {
    const int64_t head = n / D, d = n % D;
    for (int64_t i = 0; i < m->K; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < group; ++j) sum += before.row((head * group + j) * D + d)[i];
      m->row(n)[i] = static_cast<float>(sum / static_cast<double>(group));
    }
  }
}

}  // namespace

void reorder_heads(AttentionHeads* heads, const std::vector<int64_t>& order) {
  const auto G = static_cast<size_t>(heads->num_kv_heads);
  std::vector<bool> seen(G);
  for (const int64_t j : order) {
    CHECK(j >= 0 && j < heads->num_kv_heads && !seen[static_cast<size_t>(j)], "head {}", j);
    seen[static_cast<size_t>(j)] = true;
  }
  CHECK(order.size() == G, "{} places, {} heads", order.size(), G);
  const int64_t D = heads->head_dim, per_query = heads->queries_per_kv_head() * D;
  reorder_rows(&heads->q, order, per_query);
  reorder_rows(&heads->k, order, D);
  reorder_rows(&heads->v, order, D);
  reorder_columns(&heads->o, order, per_query);
  edit_bias(&heads->q_bias, [&](Matrix* m) { reorder_rows(m, order, per_query); });
  edit_bias(&heads->k_bias, [&](Matrix* m) { reorder_rows(m, order, D); });
  edit_bias(&heads->v_bias, [&](Matrix* m) { reorder_rows(m, order, D); });
}

void rotate_heads(AttentionHeads* heads, const HeadRotations& rotations) {
  const int64_t D = heads->head_dim, G = heads->num_kv_heads;
  CHECK(static_cast<int64_t>(rotations.angles.size()) == G * D / 2 &&
            static_cast<int64_t>(rotations.orthogonal.size()) == G * D * D,
        "{} angles, {} elements", rotations.angles.size(), rotations.orthogonal.size());
  const auto turn_planes = [&](Matrix* m, int64_t heads_each) {
    for (int64_t j = 0; j < G * heads_each; ++j) {
      rotate_planes(m, j, rotations.angles.data() + j / heads_each * (D / 2), D);
    }
  };
  const auto turn_values = [&](Matrix* m) {
    for (int64_t j = 0; j < G; ++j) {
      rotate_value_rows(m, j, rotations.orthogonal.data() + j * D * D, D);
    }
  };
  const int64_t per_kv_head = heads->queries_per_kv_head();
  turn_planes(&heads->q, per_kv_head);
  turn_planes(&heads->k, 1);
  turn_values(&heads->v);
  for (int64_t j = 0; j < heads->num_heads; ++j) {
    rotate_output_columns(&heads->o, j, rotations.orthogonal.data() + j / per_kv_head * D * D, D);
  }
  edit_bias(&heads->q_bias, [&](Matrix* m) { turn_planes(m, per_kv_head); });
  edit_bias(&heads->k_bias, [&](Matrix* m) { turn_planes(m, 1); });
  edit_bias(&heads->v_bias, turn_values);
}

void pool_heads(AttentionHeads* heads, int64_t num_kv_heads) {
  CHECK(num_kv_heads > 0 && heads->num_kv_heads % num_kv_heads == 0, "{} heads to {}",
        heads->num_kv_heads, num_kv_heads);
  const int64_t D = heads->head_dim, group = heads->num_kv_heads / num_kv_heads;
  pool_rows(&heads->k, D, group);
  pool_rows(&heads->v, D, group);
  edit_bias(&heads->k_bias, [&](Matrix* m) { pool_rows(m, D, group); });
  edit_bias(&heads->v_bias, [&](Matrix* m) { pool_rows(m, D, group); });
  heads->num_kv_heads = num_kv_heads;
}

}  // namespace tandem
