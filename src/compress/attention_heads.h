// The attention of one layer as heads: matrices of which blocks of head_dim rows (of o: columns)
// belong to a head, and the changes that leave its function as it is or merge KV heads.
//
// A query head and its KV head may be turned together: under half-split RoPE by a rotation of each
// plane (p, p + head_dim / 2) of q and k, and by any orthogonal matrix on v that o undoes.
#pragma once

#include <cstdint>
#include <vector>

#include "compress/matrix.h"

namespace tandem {

struct AttentionHeads {
  int64_t num_heads = 0;     // H query heads; head j reads KV head j / (H / G)
  int64_t num_kv_heads = 0;  // G
  int64_t head_dim = 0;      // D, even
  Matrix q;                  // [H D, C]
  Matrix k, v;               // [G D, C]
  Matrix o;                  // [C, H D]
  std::vector<float> q_bias, k_bias, v_bias;  // [H D], [G D], [G D] or empty

  int64_t queries_per_kv_head() const { return num_heads / num_kv_heads; }
};

// How each KV head is turned: q, k <- R^T q, R^T k and v <- Q^T v, o <- o Q. In fp64, as the unturned
// function must be met to 1e-5.
struct HeadRotations {
  std::vector<double> angles;      // [G, D/2], of the planes of R
  std::vector<double> orthogonal;  // [G, D, D] row-major, Q
};

// KV head j of the result is head order[j] of before, with its query heads. A permutation: CHECKed.
void reorder_heads(AttentionHeads* heads, const std::vector<int64_t>& order);

void rotate_heads(AttentionHeads* heads, const HeadRotations& rotations);

// Runs of neighbouring KV heads become their mean. num_kv_heads divides the heads there are:
// CHECKed.
void pool_heads(AttentionHeads* heads, int64_t num_kv_heads);

}  // namespace tandem
