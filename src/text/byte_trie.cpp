#include "text/byte_trie.h"

#include <algorithm>

#include "base/error.h"

namespace tandem {

ByteTrie::ByteTrie(std::vector<std::pair<std::string_view, int32_t>> entries) {
  if (entries.empty()) return;
  std::ranges::sort(entries);
  struct Range {
    size_t begin, end;  // the entries that share a node's bytes
  };
  // Breadth first: the nodes of one depth are the runs of entries that agree so far.
  std::vector<Range> level{{0, entries.size()}};
  nodes_.push_back({0, -1});
  for (size_t depth = 0; !level.empty(); ++depth) {
    std::vector<Range> next;
    const size_t first_node = nodes_.size() - level.size();
    for (size_t i = 0; i < level.size(); ++i) {
      auto [begin, end] = level[i];
      if (entries[begin].first.size() == depth) {
        DCHECK(depth > 0, "an empty string");
        nodes_[first_node + i].id = entries[begin++].second;
      }
      nodes_[first_node + i].first = static_cast<uint32_t>(labels_.size());
      while (begin < end) {
        const char label = entries[begin].first[depth];
        size_t run = begin + 1;
        while (run < end && entries[run].first[depth] == label) ++run;
        labels_.push_back(static_cast<uint8_t>(label));
        next.push_back({begin, run});
        begin = run;
      }
    }
    nodes_.resize(nodes_.size() + next.size());
    level = std::move(next);
  }
  nodes_.push_back({static_cast<uint32_t>(labels_.size()), -1});
  for (uint32_t i = 0; i < nodes_[1].first; ++i) roots_[labels_[i]] = i + 1;
}

}  // namespace tandem
