#include "runtime/kv_pages.h"

#include <limits>

#include "base/error.h"

namespace tandem {

KvPages::KvPages(int64_t num_pages) {
  CHECK(num_pages >= 0 && num_pages <= std::numeric_limits<int32_t>::max(), "num_pages {}",
        num_pages);
  owned_.resize(static_cast<size_t>(num_pages));
  free_.resize(static_cast<size_t>(num_pages));
  // The lowest page on top: untouched memory is used from the front.
  for (int64_t i = 0; i < num_pages; ++i) free_[i] = static_cast<int32_t>(num_pages - 1 - i);
}

bool KvPages::take(int64_t count, std::vector<int32_t>& pages) {
  CHECK(count >= 0, "count {}", count);
  if (count > num_free()) return false;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t page = free_.back();
    free_.pop_back();
    owned_[page] = true;
    pages.push_back(page);
  }
  return true;
}

void KvPages::give_back(std::span<const int32_t> pages) {
  // In reverse, so that taking the same number again yields the same pages in the same order.
  for (size_t i = pages.size(); i-- > 0;) {
    const int32_t page = pages[i];
    CHECK(page >= 0 && page < total() && owned_[page], "page {} of {} is not taken", page, total());
    owned_[page] = false;
    free_.push_back(page);
  }
}

}  // namespace tandem
