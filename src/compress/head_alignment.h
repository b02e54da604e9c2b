// Which KV heads of a layer are alike once they are turned towards one another, and by how much each
// must be turned (arXiv 2412.20677). All follows from how the heads' outputs covary over a text,
// which the Gram matrix of the layer's inputs gives. In fp64.
#pragma once

#include <complex>
#include <cstdint>
#include <vector>

#include "compress/attention_heads.h"
#include "compress/input_statistics.h"

namespace tandem {

// Sums over tokens of products of the heads' outputs. Keys are those before RoPE, which turns all
// heads of a token alike; a plane of a key is the complex number k[p] + i k[p + D/2].
struct HeadCovariance {
  int64_t num_heads = 0;  // KV heads, G
  int64_t head_dim = 0;   // D
  std::vector<std::complex<double>> keys;  // [G, G, D/2], sum of key_i conj(key_j)
  std::vector<double> values;              // [G D, G D] row-major; block (i, j): sum of v_i v_j^T
};

// Of `inputs`, whose gram must be there and as wide as q, k and v; null: as if channels were
// uncorrelated and all of one size. A bias counts as a channel of its own.
HeadCovariance covariance_of_heads(const AttentionHeads& heads, const InputStatistics* inputs);

// [G, G]: the mean of two cosines, of keys and of values, after the best turn of one head to the
// other; 1 for heads that are the same but for a turn.
std::vector<double> head_similarity(const HeadCovariance& covariance);

// Generalised Procrustes within each run of G / num_groups neighbouring heads: turns that bring
// each head nearest to the mean of its group.
HeadRotations align_heads(const HeadCovariance& covariance, int64_t num_groups);

// The share of keys' and values' power that the mean of each group keeps after these turns, in
// [0, 1]: of all groups together, keys and values weighing the same.
double kept_power(const HeadCovariance& covariance, const HeadRotations& rotations,
                  int64_t num_groups);

}  // namespace tandem
