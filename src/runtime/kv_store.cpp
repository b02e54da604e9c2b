#include "runtime/kv_store.h"

#include "base/checked.h"
#include "base/cpu.h"
#include "base/error.h"

namespace tandem {
namespace {

size_t checked_cache_bytes(const KvLayout& layout, int64_t num_pages, const Device* device) {
  CHECK(num_pages > 0 && layout.page_bytes() > 0, "num_pages {} page_bytes {}", num_pages,
        layout.page_bytes());
  const auto bytes =
      checked_mul(static_cast<uint64_t>(num_pages), static_cast<uint64_t>(layout.page_bytes()));
  const uint64_t available = device != nullptr ? device->free_bytes() : available_memory_bytes();
  if (!bytes || *bytes > available) {
    fail(ErrorKind::no_memory,
         "KV cache: {} pages of {} tokens ({} bytes each, {}) do not fit the {} bytes of memory "
         "available; ask for a smaller context, fewer sequences or an int8 cache",
         num_pages, kPageTokens, layout.page_bytes(), kv_type_name(layout.type), available);
  }
  return *bytes;
}

}  // namespace

KvStore::KvStore(const KvLayout& layout, int64_t num_pages, Device* device)
    : layout_(layout), num_pages_(num_pages), buffer_(checked_cache_bytes(layout, num_pages, device), device) {}

}  // namespace tandem
