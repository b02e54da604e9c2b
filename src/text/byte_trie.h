// A set of byte strings with ids, searched by what a text begins with.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem {

class ByteTrie {
 public:
  ByteTrie() = default;
  // Strings that are not empty and differ from each other, ids of at least 0.
  explicit ByteTrie(std::vector<std::pair<std::string_view, int32_t>> entries);

  bool empty() const { return labels_.empty(); }

  // Calls found(bytes, id) for every string that text begins with, shortest first.
  template <typename Found>
  void each_prefix(std::string_view text, Found&& found) const {
    if (empty()) return;
    uint32_t node = 0;
    for (size_t at = 0; at < text.size(); ++at) {
      node = child(node, static_cast<uint8_t>(text[at]));
      if (node == 0) return;
      if (const int32_t id = nodes_[node].id; id >= 0) found(at + 1, id);
    }
  }

 private:
  struct Node {
    uint32_t first = 0;  // its first child's place in labels_; the children lie in order of label
    int32_t id = -1;     // of the string that ends here; -1: none
  };

  // 0: none, because the root is nobody's child.
  uint32_t child(uint32_t node, uint8_t label) const {
    if (node == 0) return roots_[label];
    uint32_t low = nodes_[node].first, high = nodes_[node + 1].first;
    while (low < high) {
      const uint32_t middle = low + (high - low) / 2;
      if (labels_[middle] < label) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    // Nodes are numbered in the order of their labels, the root first.
    return low < nodes_[node + 1].first && labels_[low] == label ? low + 1 : 0;
  }

  std::vector<Node> nodes_;  // breadth first, and one more that ends the last one's children
  std::vector<uint8_t> labels_;
  uint32_t roots_[256] = {};
};

}  // namespace tandem
