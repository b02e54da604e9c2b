#include "text/merge_table.h"

#include <algorithm>
#include <functional>
#include <queue>

#include "base/error.h"

namespace tandem {
namespace {

// Up to this many symbols a scan over all pairs for each merge beats a heap.
constexpr size_t kShortWord = 40;

}  // namespace

void MergeTable::grow() {
  std::vector<Merge> old = std::move(slots_);
  slots_.assign(old.size() * 2, {});
  --shift_;
  for (const Merge& merge : old) {
    if (merge.rank != kNoRank) slots_[slot_of(merge.pair)] = merge;
  }
}

bool MergeTable::add(int32_t left, int32_t right, uint32_t rank, int32_t merged) {
  DCHECK(left >= 0 && right >= 0 && rank != kNoRank, "merge {} + {}", left, right);
  if (2 * (count_ + 1) > slots_.size()) grow();
  const uint64_t pair = pair_of(left, right);
  Merge& merge = slots_[slot_of(pair)];
  if (merge.rank != kNoRank) return false;
  merge = {pair, rank, merged};
  ++count_;
  return true;
}

size_t MergeTable::merge(std::span<int32_t> symbols) const {
  if (symbols.size() < 2) return symbols.size();
  if (symbols.size() <= kShortWord) return merge_short(symbols.data(), symbols.size());
  return merge_long(symbols);
}

size_t MergeTable::merge_short(int32_t* symbols, size_t count) const {
  uint32_t ranks[kShortWord];  // of the pair that begins at each symbol
  int32_t merged[kShortWord];
  const auto look_up = [&](size_t i) {
    const Merge& merge = find(symbols[i], symbols[i + 1]);
    ranks[i] = merge.rank;
    merged[i] = merge.merged;
  };
  for (size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    const size_t best = static_cast<size_t>(std::min_element(ranks, ranks + count - 1) - ranks);
    if (ranks[best] == kNoRank) break;
    symbols[best] = merged[best];
    --count;
    for (size_t i = best + 1; i < count; ++i) symbols[i] = symbols[i + 1];
    for (size_t i = best + 1; i + 1 < count; ++i) {
      ranks[i] = ranks[i + 1];
      merged[i] = merged[i + 1];
    }
    if (best > 0) look_up(best - 1);
    if (best + 1 < count) look_up(best);
  }
  return count;
}

size_t MergeTable::merge_long(std::span<int32_t> symbols) const {
  struct Node {
    int32_t id;  // -1: merged into its left neighbour
    int64_t previous, next;
  };
  struct Candidate {
    uint32_t rank;
    int32_t merged;
    int64_t left;
    uint64_t pair;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  const auto count = static_cast<int64_t>(symbols.size());
  std::vector<Node> nodes(symbols.size());
  for (int64_t i = 0; i < count; ++i) {
    nodes[static_cast<size_t>(i)] = {symbols[static_cast<size_t>(i)], i - 1,
                                     i + 1 < count ? i + 1 : -1};
  }
  const auto node = [&](int64_t i) -> Node& { return nodes[static_cast<size_t>(i)]; };

  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto propose = [&](int64_t left) {
    if (left < 0 || node(left).next < 0) return;
    const Merge& merge = find(node(left).id, node(node(left).next).id);
    if (merge.rank != kNoRank) queue.push({merge.rank, merge.merged, left, merge.pair});
  };
  for (int64_t i = 0; i < count; ++i) propose(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Node& left = node(best.left);
    // Either side may have merged with another neighbour since this was proposed.
    if (left.id < 0 || left.next < 0 || pair_of(left.id, node(left.next).id) != best.pair) continue;
    Node& right = node(left.next);
    left.id = best.merged;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) node(left.next).previous = best.left;
    propose(left.previous);
    propose(best.left);
  }
  size_t kept = 0;
  for (int64_t i = 0; i >= 0; i = node(i).next) symbols[kept++] = node(i).id;
  return kept;
}

}  // namespace tandem
