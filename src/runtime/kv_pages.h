// Which pages of the KV cache are whose: page numbers in, page numbers out. Pure host arithmetic;
// the bytes behind the pages are KvStore's.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tandem {

class KvPages {
 public:
  explicit KvPages(int64_t num_pages);

  int64_t total() const { return static_cast<int64_t>(owned_.size()); }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }

  // Appends `count` page numbers to `pages`; false, with nothing taken, when fewer are free. The
  // page given back last goes out first: its memory has been touched already.
  bool take(int64_t count, std::vector<int32_t>& pages);
  // Each page must have been taken and not yet given back: CHECKed.
  void give_back(std::span<const int32_t> pages);

 private:
  std::vector<int32_t> free_;  // a stack
  std::vector<bool> owned_;    // by page number
};

}  // namespace tandem
