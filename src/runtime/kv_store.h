// The memory behind the pages of the KV cache.
#pragma once

#include "kernels/device.h"
#include "kernels/ops.h"
#include "tensor/buffer.h"

namespace tandem {

class KvStore {
 public:
  // Reserves address space for num_pages pages; a page costs memory from its first use on. Throws
  // no_memory, with the bytes needed and available, when the cache would not fit once it is full.
  // On a device all pages cost memory at once.
  KvStore(const KvLayout& layout, int64_t num_pages, Device* device = nullptr);

  KvCache cache() { return {layout_, buffer_.data(), num_pages_}; }
  const KvLayout& layout() const { return layout_; }

 private:
  KvLayout layout_;
  int64_t num_pages_;
  Buffer buffer_;
};

}  // namespace tandem
