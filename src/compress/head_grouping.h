// Heads -> groups of equal size whose heads are alike: hill climbing by swaps, from the order there
// is and from random ones.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem {

// The sum of the similarities of all pairs within a group; order[j] is the head at place j, a group
// is a run of places.
double grouping_score(const std::vector<double>& similarity, const std::vector<int64_t>& order,
                      int64_t num_groups);

// The best order found for similarity[G, G], symmetric: never below that of the heads as they
// stand. Groups and the heads within one are in ascending order. num_groups divides G: CHECKed.
std::vector<int64_t> group_heads(const std::vector<double>& similarity, int64_t num_heads,
                                 int64_t num_groups, uint64_t seed);

}  // namespace tandem
