#include "tensor/buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace tandem {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;
// Large enough that a block's unaligned ends do not matter; what is never touched costs nothing.
constexpr size_t kBlockBytes = size_t{64} << 20;

}  // namespace

Buffer::Buffer(size_t size_bytes, DeviceMemory* device) : size_bytes_(size_bytes), device_(device) {
  if (size_bytes == 0) return;
  if (device_ != nullptr) {
    data_ = device_->allocate(size_bytes);
    return;
  }
  void* data = ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    size_bytes_ = 0;
    fail(ErrorKind::no_memory, "cannot reserve {} bytes of memory", size_bytes);
  }
  if (size_bytes >= 2 * kHugePageBytes) ::madvise(data, size_bytes, MADV_HUGEPAGE);
  data_ = static_cast<std::byte*>(data);
}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  if (device_ != nullptr) {
    device_->release(data_);
  } else {
    ::munmap(data_, size_bytes_);
  }
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)),
      device_(other.device_) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(device_, other.device_);
  return *this;
}

void Buffer::close() {
  CHECK(device_ == nullptr && data_ != nullptr, "{} bytes", size_bytes_);
  CHECK(::madvise(data_, size_bytes_, MADV_DONTNEED) == 0 && ::mprotect(data_, size_bytes_, PROT_NONE) == 0,
        "{} bytes", size_bytes_);
}

void Buffer::open() {
  CHECK(device_ == nullptr && data_ != nullptr, "{} bytes", size_bytes_);
  if (::mprotect(data_, size_bytes_, PROT_READ | PROT_WRITE) == 0) return;
  fail(ErrorKind::no_memory, "cannot have {} bytes of memory", size_bytes_);
}

std::byte* Arena::take(size_t size_bytes) {
  const size_t alignment = device_ != nullptr ? 256 : 64;
  const size_t padded = (size_bytes + alignment - 1) / alignment * alignment;
  if (device_ != nullptr && padded > left_ && padded >= kBlockBytes / 8 && !blocks_.empty()) {
    // A device's memory is spent when it is reserved: a large piece gets a block of its own, and the
    // current one, which stays the last, goes on being filled.
    blocks_.emplace(blocks_.end() - 1, padded, device_);
    used_bytes_ += padded;
    return (blocks_.end() - 2)->data();
  }
  if (blocks_.empty() || padded > left_) {
    blocks_.emplace_back(std::max(padded, kBlockBytes), device_);
    left_ = blocks_.back().size_bytes();
  }
  std::byte* piece = blocks_.back().data() + (blocks_.back().size_bytes() - left_);
  left_ -= padded;
  used_bytes_ += padded;
  return piece;
}

}  // namespace tandem
