// Byte-pair encoding once words are symbols: neighbours merge in the order of a table.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tandem {

class MergeTable {
 public:
  static constexpr uint32_t kNoRank = UINT32_MAX;

  struct Merge {
    uint64_t pair = 0;  // left symbol << 32 | right symbol
    uint32_t rank = kNoRank;
    int32_t merged = -1;
  };

  // False, and nothing changes, when the pair is there already.
  bool add(int32_t left, int32_t right, uint32_t rank, int32_t merged);
  // The merge of a pair; of rank kNoRank when there is none.
  const Merge& find(int32_t left, int32_t right) const {
    return slots_[slot_of(pair_of(left, right))];
  }

  // Merges the symbols of one word in place and returns how many are left. Of all neighbours the
  // pair of lowest rank merges first, the leftmost of equals. Short words take a scan for each
  // merge, long ones a heap: nearly linear time.
  size_t merge(std::span<int32_t> symbols) const;

 private:
  static uint64_t pair_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }
  // Where the merge of a pair is, or the free slot (kNoRank) where it would be.
  size_t slot_of(uint64_t pair) const {
    const size_t mask = slots_.size() - 1;
    size_t slot = pair * 0x9E3779B97F4A7C15ull >> shift_;
    while (slots_[slot].rank != kNoRank && slots_[slot].pair != pair) slot = (slot + 1) & mask;
    return slot;
  }
  void grow();
  size_t merge_short(int32_t* symbols, size_t count) const;
  size_t merge_long(std::span<int32_t> symbols) const;

  std::vector<Merge> slots_ = std::vector<Merge>(2);  // open addressing, at most half full
  size_t count_ = 0;
  int shift_ = 63;
};

}  // namespace tandem
