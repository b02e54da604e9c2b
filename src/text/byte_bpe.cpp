#include "text/byte_bpe.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <queue>
#include <string>

#include "base/error.h"

namespace tandem {
namespace {

constexpr size_t kMaxMerges = size_t{4} << 20;
// Up to this many bytes a scan over all pairs for each merge beats a heap.
constexpr size_t kShortWord = 40;

}  // namespace

ByteBpe::ByteBpe(const TokenizerSpec& spec, const Vocabulary& vocabulary)
    : vocabulary_(vocabulary) {
  if (spec.merges.empty() || spec.merges.size() > kMaxMerges) {
    fail(ErrorKind::bad_file, "tokenizer: found {} merges, expected 1 to {}", spec.merges.size(),
         kMaxMerges);
  }
  const size_t slots = std::bit_ceil(spec.merges.size() * 2);
  table_.resize(slots);
  shift_ = 64 - std::countr_zero(slots);
  std::string spelling;
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left, right] = spec.merges[rank];
    spelling.assign(left).append(right);
    const int32_t left_id = vocabulary.find(left), right_id = vocabulary.find(right);
    const int32_t merged = vocabulary.find(spelling);
    if (left_id < 0 || right_id < 0 || merged < 0) {
      fail(ErrorKind::bad_file, "tokenizer: merge {} is {} + {}: {} is not a token", rank,
           quote(left), quote(right),
           quote(left_id < 0    ? left
                 : right_id < 0 ? right
                                : spelling));
    }
    const uint64_t pair = pair_of(left_id, right_id);
    Merge& merge = table_[slot_of(pair)];
    if (merge.rank != kNoRank) {
      fail(ErrorKind::bad_file, "tokenizer: merges {} and {} are both {} + {}", merge.rank, rank,
           quote(left), quote(right));
    }
    merge = {pair, static_cast<uint32_t>(rank), merged};
  }
  if (spec.ignores_merges) index_words();
}

void ByteBpe::index_words() {
  words_.assign(std::bit_ceil(static_cast<size_t>(vocabulary_.size()) * 2), -1);
  const size_t mask = words_.size() - 1;
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    if (vocabulary_.type(id) != TokenType::normal) continue;
    size_t slot = std::hash<std::string_view>{}(vocabulary_.bytes(id)) & mask;
    while (words_[slot] >= 0) slot = (slot + 1) & mask;
    words_[slot] = id;
  }
}

int32_t ByteBpe::find_word(std::string_view word) const {
  const size_t mask = words_.size() - 1;
  size_t slot = std::hash<std::string_view>{}(word)&mask;
  while (words_[slot] >= 0 && vocabulary_.bytes(words_[slot]) != word) slot = (slot + 1) & mask;
  return words_[slot];
}

size_t ByteBpe::slot_of(uint64_t pair) const {
  const size_t mask = table_.size() - 1;
  size_t slot = pair * 0x9E3779B97F4A7C15ull >> shift_;
  while (table_[slot].rank != kNoRank && table_[slot].pair != pair) slot = (slot + 1) & mask;
  return slot;
}

void ByteBpe::encode_word(std::string_view word, std::vector<int32_t>& ids) const {
  if (!words_.empty()) {
    if (const int32_t id = find_word(word); id >= 0) return ids.push_back(id);
  }
  if (word.size() <= kShortWord) {
    int32_t symbols[kShortWord];
    size_t count = 0;
    for (const char c : word) {
      const int32_t id = vocabulary_.byte_id(static_cast<uint8_t>(c));
      if (id >= 0) symbols[count++] = id;
    }
    if (count > 0) merge_short(symbols, count, ids);
    return;
  }
  std::vector<int32_t> symbols;
  symbols.reserve(word.size());
  for (const char c : word) {
    const int32_t id = vocabulary_.byte_id(static_cast<uint8_t>(c));
    if (id >= 0) symbols.push_back(id);
  }
  merge_long(symbols, ids);
}

void ByteBpe::merge_short(int32_t* symbols, size_t count, std::vector<int32_t>& ids) const {
  uint32_t ranks[kShortWord];  // of the pair that begins at each symbol
  int32_t merged[kShortWord];
  const auto look_up = [&](size_t i) {
    const Merge& merge = find(pair_of(symbols[i], symbols[i + 1]));
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
  ids.insert(ids.end(), symbols, symbols + count);
}

void ByteBpe::merge_long(const std::vector<int32_t>& symbols, std::vector<int32_t>& ids) const {
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
    const uint64_t pair = pair_of(node(left).id, node(node(left).next).id);
    const Merge& merge = find(pair);
    if (merge.rank != kNoRank) queue.push({merge.rank, merge.merged, left, pair});
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
  if (count == 0) return;
  for (int64_t i = 0; i >= 0; i = node(i).next) ids.push_back(node(i).id);
}

}  // namespace tandem
